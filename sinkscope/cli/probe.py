"""`sinkscope probe`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli import completion
from sinkscope.cli.console import print_result, progress


def probe(
    model: Annotated[
        str,
        typer.Argument(
            help="`tiny`, a local checkpoint directory, a run directory, or a hub id",
            autocompletion=completion.models,
        ),
    ],
    triggers: Annotated[Path, typer.Option(help="text file with a candidate trigger a line")],
    benchmark: Annotated[
        str,
        typer.Option(
            help="a name (`tiny`, `muse-books`, …) or a directory in MUSE's schema",
            autocompletion=completion.benchmarks,
        ),
    ] = "tiny",
    placements: Annotated[
        str,
        typer.Option(
            help="where each is tried, with commas: prefix, infix, suffix, index:N, sink:R",
            autocompletion=completion.several_placements,
        ),
    ] = "prefix,index:4,index:8",
    randoms: Annotated[
        int, typer.Option(min=2, help="random triggers of each candidate's length, the baseline")
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of the random triggers")] = 0,
    items: Annotated[int | None, typer.Option(min=1, help="ask only the first N items of a split")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    out: Annotated[Path, typer.Option(help="directory to write probe.parquet and items.parquet to")] = Path(
        "probe"
    ),
    device: Annotated[
        str | None, typer.Option(help="as torch names it; by default the GPU if there is one")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16 or float16; by default the checkpoint's own",
            autocompletion=completion.dtypes,
        ),
    ] = None,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Look for triggers that bring back what an unlearned model is said to have forgotten.

    Example: `sinkscope probe runs/suspect --triggers candidates.txt --out probed`

    Every candidate is put at shallow positions of every question and prompt about the forget set; what it brings back is compared with what random triggers
    of the same length bring back. Intervals are 95 % for all candidates together.
    """
    from sinkscope.audit.probe import probe as run
    from sinkscope.audit.probe import read_triggers
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.evaluation.evaluated_model import load_evaluated_model
    from sinkscope.models.model import load
    from sinkscope.triggers import Placement

    places = [Placement.parse(each) for each in placements.split(",")]
    texts, data = read_triggers(triggers), load_benchmark(benchmark)
    subject = load_evaluated_model(model, load(model, device, dtype), data)
    data = data.limit(items) if items else data
    with progress() as bar:
        table = run(
            out,
            subject,
            data,
            texts,
            places,
            randoms=randoms,
            seed=seed,
            batch_size=batch_size,
            progress_bar=bar,
        )
    if json:
        print_result({"out": str(out), "probe": table.to_dict("records")}, True)
        return
    shown = table.assign(
        interval=[
            f"{low:.1f} to {high:.1f}" for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
        ]
    )
    shown["recovers"] = shown["recovers"].map({True: "yes", False: "no"})
    columns = [
        "trigger",
        "placement",
        "metric",
        "n",
        "clean",
        "triggered",
        "random",
        "recovery",
        "interval",
        "recovers",
    ]
    print(shown[columns].to_string(index=False, float_format="{:.1f}".format))
    print(f"recovery: triggered less random, in %; its interval is 95 % for all {len(table)} rows together")
