"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called as `report(done, total)` while one piece of work goes on."""

ProgressBar = Callable[[str], OnProgress]
"""Called with a description when a piece of work starts; gives its `Report`."""


def silent(description: str) -> OnProgress:
    """A bar that shows nothing."""
    return lambda done, total: None
