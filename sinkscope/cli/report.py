"""`sinkscope report`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result


def report(
    results: Annotated[
        Path, typer.Argument(help="a directory that locate, compare, unlearn, evaluate, probe or study wrote")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="the HTML file to write; by default the directory's name with .html, here"),
    ] = None,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Make one HTML file of results, to look at and to pass on: it needs no network and no other file.

    Example: `sinkscope report sinks --out sinks.html`
    """
    from sinkscope.report import write_report

    page = out or Path(f"{os.path.basename(os.path.realpath(results))}.html")
    print_result({"page": str(page), "bytes": write_report(results, page)}, json)
