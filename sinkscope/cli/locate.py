"""The command `sinkscope locate`: measure the attention sinks of a model on a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import (
    BackendOpt,
    BatchSizeOpt,
    ColumnOpt,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    ModelArg,
    SeedOpt,
    TextOpt,
    TrustOpt,
)

StatsOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--stats",
        help="further statistics of each query: entropy, learned_sink; may be repeated",
        autocompletion=lambda: ["entropy", "learned_sink"],
    ),
]
HeadOpt = Annotated[
    list[str] | None,
    typer.Option(
        help="layer:head (as in 3:5) whose attention map is drawn; may be repeated; by default the strongest"
    ),
]
FractionOpt = Annotated[
    float | None,
    typer.Option(
        "--query-fraction",
        help="read only this fraction of the queries after the first 128: α with an interval, no sink rate",
    ),
]


def locate(  # typer: one parameter per option
    model: ModelArg,
    text: TextOpt,
    max_length: Annotated[int, typer.Option(help="tokens per passage, BOS included")] = 64,
    column: ColumnOpt = "text",
    epsilon: Annotated[float, typer.Option(help="threshold on α for the sink rate")] = 0.3,
    statistics: StatsOpt = None,
    head: HeadOpt = None,
    backend: BackendOpt = None,
    query_fraction: FractionOpt = None,
    seed: SeedOpt = 0,
    batch_size: BatchSizeOpt = 8,
    out: Annotated[Path, typer.Option(help="directory to write tables and figures to")] = Path("sinks"),
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    trust_remote_code: TrustOpt = False,
    json: JsonOpt = False,
) -> None:
    """Measure where a model's heads attend, and draw it.

    Example: `sinkscope locate tiny --text notes.txt --out sinks`
    """
    from sinkscope.models.model import load
    from sinkscope.plots.run_figures import draw_locate
    from sinkscope.sinks.locate import CaptureConfig, parse_head, write_locate
    from sinkscope.text import read_texts, tokenize_passages

    config = CaptureConfig(
        epsilon, tuple(statistics or ()), backend, query_fraction, seed=seed, batch_size=batch_size
    )
    heads = [parse_head(name) for name in head or []]
    texts = read_texts(text, column)
    loaded = load(model, device, dtype, trust_remote_code)
    passages = tokenize_passages(texts, loaded, max_length, f"text {text}")
    with progress() as progress_bar:
        sinks = write_locate(
            out,
            loaded,
            passages,
            config,
            heads=heads,
            draw=draw_locate,
            on_progress=progress_bar(f"locate in {len(passages)} passages"),
        )
    print_result(sinks.summary() | {"out": str(out)}, json)
