"""Arguments and options that several commands share, and the values that shell completion offers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Backend = Literal["hooks", "tiled"]
Dtype = Literal["float32", "bfloat16", "float16"]

_PLACEMENTS = ("prefix", "infix", "suffix", "index:8", "sink:1")


def model_names() -> list[str]:
    """Built-in models. Completion starts a new process at every key press, so nothing here loads torch."""
    return ["tiny", "tiny-retrained", "tiny-wmdp"]


def benchmark_names() -> list[str]:
    """Benchmarks that have a name."""
    from sinkscope.benchmarks.benchmark import BENCHMARKS

    return list(BENCHMARKS)


def recipe_names() -> list[tuple[str, str]]:
    """Recipes that come with the package, each with its first line."""
    from sinkscope.unlearning.recipe_files import recipe_summaries

    return list(recipe_summaries().items())


def placement_names(incomplete: str) -> list[str]:
    """The five forms of a placement, after each comma."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _PLACEMENTS]


_MODEL_HELP = "a built-in model (`tiny`), a checkpoint directory, a run directory, or a hub id"

ModelArg = Annotated[str, typer.Argument(help=_MODEL_HELP, autocompletion=model_names)]
OtherModelArg = Annotated[
    str | None,
    typer.Argument(help="a second model, of the same shape and tokenizer", autocompletion=model_names),
]
TextOpt = Annotated[
    Path, typer.Option(help="a .txt file, a .jsonl file with a text column, or a directory of .txt files")
]
ColumnOpt = Annotated[str, typer.Option(help="column of a .jsonl file that holds the text")]
BenchmarkOpt = Annotated[
    str,
    typer.Option(
        help="a name (`tiny`, `muse-books`, …) or a directory in MUSE's schema",
        autocompletion=benchmark_names,
    ),
]
TriggerOpt = Annotated[str | None, typer.Option(help="trigger text; by default there is no trigger")]
PlacementOpt = Annotated[
    str | None,
    typer.Option(
        help="prefix (the default), infix, suffix, index:N or sink:R (rank of the sink)",
        autocompletion=placement_names,
    ),
]
BackendOpt = Annotated[
    Backend | None,
    typer.Option(help="capture by TransformerLens hooks or by tiles; by default hooks up to 1024 tokens"),
]
BatchSizeOpt = Annotated[int, typer.Option(min=1, help="sequences per forward pass")]
LimitOpt = Annotated[int | None, typer.Option(min=1, help="use only the first N items of each split or task")]
SeedOpt = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of all random choices")]
DeviceOpt = Annotated[str | None, typer.Option(help="torch device; by default the GPU if there is one")]
DtypeOpt = Annotated[Dtype | None, typer.Option(help="weights' data type; by default the checkpoint's own")]
TrustOpt = Annotated[bool, typer.Option(help="run Python code that comes with the checkpoint")]
JsonOpt = Annotated[bool, typer.Option(help="print one JSON object")]
PluginOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="Python file that registers objectives, metrics or benchmarks; it is executed; may be repeated",
    ),
]
