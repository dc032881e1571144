"""`sinkscope tiny`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result, progress

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The built-in benchmarks.

    Example: `sinkscope tiny build --out tiny`
    """


@app.command()
def build(
    out: Annotated[
        Path, typer.Option(help="directory to write corpora, tokenizer and both models to")
    ] = Path("tiny"),
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="seed of language, corpora and training")
    ] = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="steps of the base, the rest in proportion; by default those of the shipped benchmark"
        ),
    ] = None,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Remake the built-in benchmark and measure what it must show.

    Example: `sinkscope tiny build --out tiny`
    """
    from sinkscope.synthetic.tiny import build as run

    with progress() as bar:
        print_result(run(out, seed, bar, steps=steps), json)


@app.command()
def build_wmdp(
    out: Annotated[Path, typer.Option(help="directory to write benchmark and target model to")] = Path(
        "tiny-wmdp"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of facts and training")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="steps of the first lesson, the second in proportion; by default those shipped"
        ),
    ] = None,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Remake the tiny twin of WMDP from the built-in model and measure what it must show.

    Example: `sinkscope tiny build-wmdp --out tiny-wmdp`
    """
    from sinkscope.synthetic.tiny_wmdp import build_wmdp as run

    with progress() as bar:
        print_result(run(out, seed, bar, steps=steps), json)
