"""The commands `sinkscope tiny …`: build the built-in benchmarks from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import JsonOpt, OutOpt, SeedOpt

if TYPE_CHECKING:
    import pandas as pd

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
        print_result(build_tiny(out, seed, progress_bar, steps=steps, draw_curve=_draw_curve), json)


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


def _draw_curve(curve: pd.DataFrame, directory: Path) -> None:
    from sinkscope.plots.lines import draw_training_curve
    from sinkscope.plots.style import save_figure

    to_target = curve[curve["model"].isin(["base", "target"])]
    figure = draw_training_curve(to_target, "sinks while base and target train (32 held-out passages)")
    save_figure(figure, curve, directory, "training_curve")
