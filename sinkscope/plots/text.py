"""Text helpers for matplotlib: visible whitespace, missing glyphs, wrapped captions."""

from __future__ import annotations

import textwrap
from functools import cache

from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
MISSING = "□"
_SIGNS = {"\n": "⏎", "\t": "⇥", " ": "␣"}
_PER_INCH = 17  # characters of a caption, 7 pt


def show_whitespace(token: str) -> str:
    """A token as one line: ␣ for a space, ⏎ for a newline, escapes for characters that do not print, ∅ if
    empty."""
    signs = [_SIGNS.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in token]
    return "".join(signs) or "∅"


def truncate(token: str, width: int) -> str:
    """At most `width` characters; the last one is … if there were more."""
    return token if len(token) <= width else token[: width - 1] + "…"


def sanitize_glyphs(text: str, font: str = SANS) -> str:
    """The text as matplotlib draws it without a warning: □ for characters that `font` lacks, $ escaped."""
    known = _characters(font)
    return "".join(c if c == "\n" or ord(c) in known else MISSING for c in text).replace("$", r"\$")


def wrap_caption(text: str, width: float) -> str:
    """A caption above a figure of `width` inches, in as many lines as it needs."""
    return sanitize_glyphs(textwrap.fill(text, int(width * _PER_INCH), break_on_hyphens=False))


@cache
def _characters(font: str) -> frozenset[int]:
    return frozenset(FT2Font(findfont(font)).get_charmap())
