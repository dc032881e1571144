"""The models and benchmarks that come with sinkscope: names, directories, and a check of their files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sinkscope.errors import ModelError
from sinkscope.io.run_directory import sha256

BUILT_IN = {
    "tiny": ("tiny", "target"),
    "tiny-retrained": ("tiny", "retrained"),
    "tiny-wmdp": ("tiny-wmdp", "target"),
}
"""Built-in models: name -> (the benchmark it belongs to, its subdirectory there)."""


def data_directory(benchmark: str = "tiny") -> Path:
    """The directory of a built-in benchmark, in the installed package or in the checkout.

    Raises:
        ModelError: it is in neither of them.
    """
    package = Path(__file__).resolve().parents[1]
    for parent in (package, package.parent):
        if (parent / "data" / benchmark).is_dir():
            return parent / "data" / benchmark
    raise ModelError(
        f"the built-in benchmark is missing from {package.parent / 'data' / benchmark}; "
        f"reinstall sinkscope, or {_how_to_rebuild(benchmark)}"
    )


def verify_built_in(root: Path, folders: Iterable[str]) -> None:
    """Compare the files in some subdirectories of a built-in benchmark with its SHA256SUMS.json.

    Raises:
        ModelError: a file is missing or was changed.
    """
    sums_file = root / "SHA256SUMS.json"
    hint = f"reinstall sinkscope, or {_how_to_rebuild(root.name)}"
    try:
        sums = json.loads(sums_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{sums_file} is missing or damaged; {hint}") from error
    for name, digest in sums.items():
        path = root / name
        if name.split("/")[0] in folders and not (path.is_file() and sha256(path) == digest):
            raise ModelError(f"{path} is missing or was changed; restore it, {hint}")


def _how_to_rebuild(benchmark: str) -> str:
    command = "build" if benchmark == "tiny" else "build-wmdp"
    return f"run `sinkscope tiny {command} --out data/{benchmark}` in a checkout"
