"""Errors that the user can correct: one type per kind of input, one line that names the input and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The command line prints the message as one line and exits with 2."""


class TextError(UserError):
    """A text file, or a passage in it, cannot be used."""


class ModelError(UserError):
    """A model or tokenizer cannot be loaded or is not supported."""


class PlacementError(UserError):
    """A trigger or a placement does not fit the passage."""


class RecipeError(UserError):
    """A recipe has an unknown key or an impossible value."""


class BenchmarkError(UserError):
    """A benchmark's files lack a split or a column."""


class OutputError(UserError):
    """An output directory cannot be used or written."""


class StudyError(UserError):
    """A study's specification has an unknown key or an impossible value, or some of its runs failed."""


class PluginError(UserError):
    """A plugin file is missing, or fails while it is executed."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, truncated; the error's type if it has no message.

    With the second line where the first only announces it (`Error(s) in loading state_dict for …:`).
    """
    text = f"no key {error}" if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])[:200]


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU, or of PyTorch's allocator on the CPU, or of Python; PyTorch need not be loaded."""
    is_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_torch)


def suggest(name: str, known: Iterable[str], label: str = "known names", prefix: str = "") -> str:
    """The hint for an unknown name: the nearest known one (after `prefix`), or all of them."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {prefix + nearest[0]!r}?" if nearest else f"{label}: {', '.join(known)}"
