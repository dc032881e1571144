"""Output shared by all commands: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sinkscope.io.progress import OnProgress, ProgressBar

stderr = Console(stderr=True)
LINE_EVERY = 10.0
"""Seconds between two lines of progress."""


def print_result(value: dict[str, Any], as_json: bool) -> None:
    """Print the result of a command: one JSON object with --json, otherwise lines of `key: value`."""
    if as_json:
        print(json.dumps(value, default=str))
        return
    for key, content in value.items():
        print(f"{key}: {content:.4g}" if isinstance(content, float) else f"{key}: {content}")


def progress_bars() -> Progress:
    """Bars with the time left, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr, disable=not sys.stderr.isatty())


def _progress_lines(description: str) -> OnProgress:
    last = time.monotonic()

    def on_progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            print(f"{description}: {done} of {total}", file=sys.stderr, flush=True)

    return on_progress


@contextmanager
def progress() -> Iterator[ProgressBar]:
    """Progress bars, or without a terminal a line every ten seconds; the yielded function starts one."""
    with progress_bars() as bars:

        def start(description: str) -> OnProgress:
            if bars.disable:
                return _progress_lines(description)
            task = bars.add_task(escape(description), total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield start
