"""The commands `sinkscope tiny …`: build the built-in benchmarks from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import JsonOpt, OutOpt, SeedOpt

app = typer.Typer(no_args_is_help=True)
StepsOpt = Annotated[
    int | None, typer.Option(min=1, help="of the first training stage; the others are in proportion")
]


@app.callback()
def _group() -> None:
    """Build the built-in benchmarks from scratch.

    Example: `sinkscope tiny build --out tiny`
    """


@app.command()
def build(
    out: OutOpt = Path("tiny"), seed: SeedOpt = 0, steps: StepsOpt = None, json: JsonOpt = False
) -> None:
    """Build the benchmark `tiny` and check that it meets its acceptance criteria.

    Example: `sinkscope tiny build --out tiny`
    """
    from sinkscope.synthetic.tiny import build_tiny

    with progress() as progress_bar:
        print_result(build_tiny(out, seed, progress_bar, steps=steps), json)


@app.command()
def build_wmdp(
    out: OutOpt = Path("tiny-wmdp"), seed: SeedOpt = 0, steps: StepsOpt = None, json: JsonOpt = False
) -> None:
    """Build the benchmark `tiny-wmdp` from the target of `tiny` and check its acceptance criteria.

    Example: `sinkscope tiny build-wmdp --out tiny-wmdp`
    """
    from sinkscope.synthetic.tiny_wmdp import build_tiny_wmdp

    with progress() as progress_bar:
        print_result(build_tiny_wmdp(out, seed, progress_bar, steps=steps), json)
