"""Types of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called as `on_progress(done, total)` during one piece of work."""

ProgressBar = Callable[[str], OnProgress]
"""Called with a description when a piece of work starts; returns its `OnProgress`."""


def silent(description: str) -> OnProgress:
    """A progress bar that displays nothing."""
    return lambda done, total: None


def shift_progress(on_progress: OnProgress | None, done: int, total: int) -> OnProgress:
    """Progress of one part of a job of which `done` of `total` units were complete before."""
    return lambda count, _: on_progress(done + count, total) if on_progress else None
