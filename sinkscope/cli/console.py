"""Output shared by all commands: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sinkscope.io.progress import OnProgress, ProgressBar

stderr = Console(stderr=True)


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


@contextmanager
def progress() -> Iterator[ProgressBar]:
    """Progress bars; the yielded function starts one."""
    with progress_bars() as bars:

        def start(description: str) -> OnProgress:
            task = bars.add_task(escape(description), total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield start
