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
        if isinstance(content, float):
            content = f"{content:.4g}"
        print(f"{key}: {content}")


@contextmanager
def progress() -> Iterator[ProgressBar]:
    """Progress bars with the time left, on a terminal only; the yielded function starts a bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as bars:

        def start(description: str) -> OnProgress:
            task = bars.add_task(escape(description), total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield start
