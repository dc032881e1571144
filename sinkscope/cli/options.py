"""Arguments and options that several commands share, and the values that shell completion offers for them.

Completion starts a new process at every key press, so nothing here loads torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sinkscope.errors import TextError

Backend = Literal["hooks", "tiled"]
Bos = Literal["auto", "always", "never"]
Dtype = Literal["float32", "bfloat16", "float16"]

_MODEL = (
    "a model by name (`tiny`, `smollm2`), a checkpoint directory, a run directory, a directory with a PEFT "
    "adapter, a GGUF file, or a hub id"
)
_BENCHMARK = "a name (`tiny`, `muse-books`, …) or a directory in MUSE's schema"
_TEXT = (
    "a .txt, .md, .jsonl, .json, .csv, .tsv or .parquet file, a directory of .txt files, "
    "hub:NAME:SPLIT, or - (standard input)"
)
_FORMS = "prefix, infix, suffix, index:N, sink:R (rank of the sink), or with --system system"
_PLACEMENTS = ("prefix", "infix", "suffix", "index:8", "sink:1", "system")


def model_names() -> list[str]:
    """Models that have a name."""
    return ["tiny", "tiny-retrained", "tiny-wmdp", "smollm2"]


def benchmark_names() -> list[str]:
    """Benchmarks that have a name."""
    from sinkscope.benchmarks.benchmark import BENCHMARKS

    return list(BENCHMARKS)


def check_system(chat: bool, system: str | None) -> None:
    """Raise TextError for a system prompt without chats."""
    if system is not None and not chat:
        raise TextError("`system` is the system prompt of chats; give `chat` too")


def check_chat(chat: bool, system: str | None, bos: Bos) -> None:
    """As `check_system`, and raise TextError for BOS in chats, where all text is in the template."""
    check_system(chat, system)
    if chat and bos != "auto":
        raise TextError(f"`bos` {bos} has no effect on chats, whose template decides; leave it out")


def placement_names(incomplete: str) -> list[str]:
    """The six forms of a placement, after each comma."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _PLACEMENTS]


BaseOpt = Annotated[
    str | None, typer.Option(help="the model that an adapter was trained on; by default the one it names")
]
BosOpt = Annotated[
    Bos, typer.Option(help="put a BOS token before each text: auto does as the model's own tokenizer does")
]
ChatOpt = Annotated[
    bool,
    typer.Option(
        "--chat", help="put each text or prompt through the model's chat template, as the user's turn"
    ),
]
SystemOpt = Annotated[str | None, typer.Option(help="system prompt of each chat; needs --chat")]
ModelArg = Annotated[str, typer.Argument(help=_MODEL, autocompletion=model_names)]
TextOpt = Annotated[Path, typer.Option(help=_TEXT)]
ColumnOpt = Annotated[str, typer.Option(help="column that holds the text, in files of records")]
BenchmarkOpt = Annotated[
    str | None,
    typer.Option(
        help=f"{_BENCHMARK}; by default that of the run or of the built-in model",
        autocompletion=benchmark_names,
    ),
]
TriggerOpt = Annotated[str | None, typer.Option(help="trigger text; by default there is no trigger")]
PlacementOpt = Annotated[
    str | None, typer.Option(help=f"{_FORMS}; by default prefix", autocompletion=placement_names)
]
PlacementsOpt = Annotated[
    str | None,
    typer.Option(
        help=f"{_FORMS}; separated by commas; by default prefix,index:4,index:8 (chats: prefix,infix,suffix)",
        autocompletion=placement_names,
    ),
]
BackendOpt = Annotated[
    Backend | None, typer.Option(help="TransformerLens hooks, or tiles; by default hooks up to 1024 tokens")
]
BatchSizeOpt = Annotated[int, typer.Option(min=1, help="sequences per forward pass")]
NameOpt = Annotated[str | None, typer.Option(help="name of the model in results and pictures")]
LimitOpt = Annotated[int | None, typer.Option(min=1, help="use only the first N items of each split or task")]
SeedOpt = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of all random choices")]
OutOpt = Annotated[Path, typer.Option(help="directory to write the results to")]
DeviceOpt = Annotated[str | None, typer.Option(help="torch device; by default the GPU if there is one")]
DtypeOpt = Annotated[Dtype | None, typer.Option(help="weights' data type; by default the checkpoint's own")]
DeviceMapOpt = Annotated[
    str | None,
    typer.Option(
        help="for a model larger than one device: auto, balanced, or a YAML file of devices by module"
    ),
]
MaxMemoryOpt = Annotated[
    str | None,
    typer.Option(help="of each device for --device-map, as in 0=20GB,cpu=40GB; the rest stays on disk"),
]
OffloadOpt = Annotated[
    Path | None,
    typer.Option(
        help="directory for weights that the checkpoint holds in another form; temporary by default"
    ),
]
TrustOpt = Annotated[
    bool, typer.Option("--trust-remote-code", help="run Python code that comes with the checkpoint")
]
JsonOpt = Annotated[bool, typer.Option("--json", help="print one JSON object")]
PluginOpt = Annotated[
    list[Path] | None,
    typer.Option(help="Python file to execute; it registers objectives, metrics or benchmarks; repeatable"),
]
