"""What every command shares: one JSON object on standard output, all talk on standard error, one line for an error."""

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
    """Print the command's result: the JSON object alone with --json, readable `key: value` lines otherwise."""
    if as_json:
        print(json.dumps(value, default=str))
        return
    for key, content in value.items():
        if isinstance(content, float):
            content = f"{content:.4g}"
        print(f"{key}: {content}")


@contextmanager
def progress() -> Iterator[ProgressBar]:
    """Progress bars with time left on a terminal, silence elsewhere. The yielded function starts a bar and gives its reporter."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as bars:

        def start(description: str) -> OnProgress:
            task = bars.add_task(escape(description), total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield start
