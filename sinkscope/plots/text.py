"""Any text in a picture: what cannot be seen is made visible, what the font lacks is replaced, nothing is read as mathematics."""

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
    """A token as one line: ␣ for a space, ⏎ for a newline, escapes for what else does not print, ∅ for an empty token."""
    return (
        "".join(
            _SIGNS.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in token
        )
        or "∅"
    )


def truncate(token: str, width: int) -> str:
    """At most `width` characters, the last of them … if there were more."""
    return token if len(token) <= width else token[: width - 1] + "…"


def sanitize_glyphs(text: str, font: str = SANS) -> str:
    """The text as matplotlib draws it without a warning: □ for every character that `font` lacks, $ as itself."""
    known = _characters(font)
    return "".join(c if c == "\n" or ord(c) in known else MISSING for c in text).replace("$", r"\$")


def wrap_caption(text: str, width: float) -> str:
    """A caption over a picture `width` inches wide, in as many lines as it takes."""
    return sanitize_glyphs(textwrap.fill(text, int(width * _PER_INCH), break_on_hyphens=False))


@cache
def _characters(font: str) -> frozenset[int]:
    return frozenset(FT2Font(findfont(font)).get_charmap())
