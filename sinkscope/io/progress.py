"""Progress callbacks, and silence of other libraries: what is printed while something runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Within the context the named loggers report only what is at this level or above."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the context transformers reports errors only, without progress bars."""
    from transformers.utils import logging as library

    has_bars = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        with quiet_loggers("transformers"):
            yield
    finally:
        if has_bars:
            library.enable_progress_bar()
