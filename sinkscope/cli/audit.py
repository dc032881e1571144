"""The command `sinkscope audit`: does one of these candidate triggers recover what a model has unlearned?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import (
    BatchSizeOpt,
    BenchmarkOpt,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    LimitOpt,
    ModelArg,
    PluginOpt,
    SeedOpt,
    placement_names,
)
from sinkscope.plugins import load_plugins

PlacementsOpt = Annotated[
    str,
    typer.Option(
        help="placements to try, separated by commas: prefix, infix, suffix, index:N, sink:R",
        autocompletion=placement_names,
    ),
]
RandomOpt = Annotated[
    int, typer.Option("--n-random", min=2, help="random triggers of each candidate's length, as a baseline")
]
COLUMNS = ["trigger", "placement", "metric", "n", "clean", "triggered", "random", "recovery", "interval"]


def audit(  # typer: one parameter per option
    model: ModelArg,
    triggers: Annotated[Path, typer.Option(help="text file with one candidate trigger per line")],
    benchmark: BenchmarkOpt = "tiny",
    placements: PlacementsOpt = "prefix,index:4,index:8",
    n_random: RandomOpt = 8,
    seed: SeedOpt = 0,
    limit: LimitOpt = None,
    batch_size: BatchSizeOpt = 32,
    out: Annotated[Path, typer.Option(help="directory to write tables to")] = Path("audit"),
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Search for triggers that recover what an unlearned model is said to have forgotten.

    Every candidate is inserted at shallow positions of each question and prompt about the forget set. The
    score is compared with that of random triggers of the same length. Intervals are 95 % for all candidates
    together.

    Example: `sinkscope audit runs/suspect --triggers candidates.txt --out audited`
    """
    load_plugins(plugin or [])
    from sinkscope.audit.candidates import AuditConfig, audit_triggers, read_triggers
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.evaluation.evaluated_model import load_evaluated_model
    from sinkscope.models.model import load
    from sinkscope.triggers import Placement

    parsed = [Placement.parse(name) for name in placements.split(",")]
    texts = read_triggers(triggers)
    data = load_benchmark(benchmark)
    evaluated = load_evaluated_model(model, load(model, device, dtype), data)
    config = AuditConfig(parsed, n_random, seed, limit, batch_size)
    with progress() as progress_bar:
        table = audit_triggers(out, evaluated, data, texts, config, progress_bar)
    if json:
        print_result({"out": str(out), "audit": table.to_dict("records")}, True)
        return
    intervals = zip(table["ci_low"], table["ci_high"], strict=True)
    printed = table.assign(
        interval=[f"{low:.1f} to {high:.1f}" for low, high in intervals],
        recovers=table["recovers"].map({True: "yes", False: "no"}),
    )
    print(printed[[*COLUMNS, "recovers"]].to_string(index=False, float_format="{:.1f}".format))
    print(f"recovery: triggered − random, in %; its interval is 95 % for all {len(table)} rows together")
