"""`sinkscope figures`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result


def figures(
    study: Annotated[Path, typer.Argument(help="a finished study's directory")],
    out: Annotated[
        Path, typer.Option(help="directory to write pictures (PNG, PDF) and their numbers (CSV) to")
    ] = Path("figures"),
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Draw the paper's figures and tables, and those beyond it, from a study: all that it has the runs for. What is left out is told with the reason.

    Example: `sinkscope figures studies/paper-quick --out figures`
    """
    from sinkscope.figures import draw_all
    from sinkscope.io.run_directory import wrap_read_errors
    from sinkscope.studies.study import Study

    with wrap_read_errors(study):
        written, skipped = draw_all(Study(study), out)
    if json:
        print_result({"out": str(out), "written": written, "skipped": skipped}, True)
        return
    for name in written:
        print(out / name)
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")
    if not written:
        print(
            "no picture was drawn: the study has not the grids of any; see analyses/*.yaml, or `sinkscope report` for a page of what it has"
        )
