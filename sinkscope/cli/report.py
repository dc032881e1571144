"""The command `sinkscope report`: one HTML file of results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result
from sinkscope.cli.options import JsonOpt

ResultsArg = Annotated[
    Path, typer.Argument(help="directory that locate, compare, unlearn, evaluate, audit or study wrote")
]
OutOpt = Annotated[
    Path | None, typer.Option(help="HTML file to write [default: name of the directory with .html]")
]


def report(results: ResultsArg, out: OutOpt = None, json: JsonOpt = False) -> None:
    """Make one self-contained HTML file of results, which needs no network and no other file.

    Example: `sinkscope report sinks --out sinks.html`
    """
    from sinkscope.report import write_report

    page = out or Path(f"{os.path.basename(os.path.realpath(results))}.html")
    print_result({"page": str(page), "bytes": write_report(results, page)}, json)
