"""`sinkscope locate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli import completion
from sinkscope.cli.console import print_result, progress


def locate(
    model: Annotated[
        str,
        typer.Argument(
            help="`tiny`, a local checkpoint directory, a run directory, or a hub id",
            autocompletion=completion.models,
        ),
    ],
    text: Annotated[
        Path, typer.Option(help="a .txt file, a .jsonl file with a text column, or a directory of .txt files")
    ],
    max_length: Annotated[int, typer.Option(help="tokens per passage, BOS included")] = 64,
    column: Annotated[str, typer.Option(help="the column of a jsonl file to read")] = "text",
    epsilon: Annotated[
        float, typer.Option(help="a head counts as a sink head on a passage when α exceeds this")
    ] = 0.3,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="more to measure of each query: entropy, learned_sink; can be given twice",
            autocompletion=completion.statistics,
        ),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="layer:head whose attention map to draw, as 3:5; can be repeated; by default the strongest"
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="lens or stream; by default lens up to 1024 tokens, stream beyond and with --rows",
            autocompletion=completion.sources,
        ),
    ] = None,
    rows: Annotated[
        float | None,
        typer.Option(
            help="read only this share of the queries behind the first 128: α with an interval, no sink rate"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="which queries --rows draws")] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    out: Annotated[
        Path, typer.Option(help="directory to write sinks.parquet, sinks.nc and figures to")
    ] = Path("sinks"),
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
    trust_remote_code: Annotated[
        bool, typer.Option(help="run Python code that comes with the checkpoint")
    ] = False,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Find where a model's heads put their attention, and draw it.

    Example: `sinkscope locate tiny --text notes.txt --out sinks`
    """
    from sinkscope.models.model import load
    from sinkscope.sinks.locate_run import locate_in_text, parse_head
    from sinkscope.text import read_texts, tokenize_passages

    heads = [parse_head(each) for each in head or []]
    texts = read_texts(text, column)
    loaded = load(model, device, dtype, trust_remote_code)
    passages = tokenize_passages(texts, loaded, max_length, f"text {text}")
    with progress() as bar:
        summary = locate_in_text(
            loaded,
            passages,
            out,
            epsilon=epsilon,
            also=also or [],
            heads=heads,
            source=source,  # type: ignore[arg-type]  # checked where it is chosen
            rows=rows,
            seed=seed,
            batch_size=batch_size,
            on_progress=bar(f"locate in {len(passages)} passages"),
        )
    print_result(summary | {"out": str(out)}, json)
