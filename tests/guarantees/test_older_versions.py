"""Results of another version of sinkscope are refused in one line that says how to make them again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sinkscope.schema import KINDS
from tests.guarantees.reading import Arguments, check_refused, sinkscope

READERS: dict[str, Arguments] = {
    "page": lambda path, good: ["report", path],
    "evaluated model": lambda path, good: ["evaluate", path, "--benchmark", "tiny", "--limit", 1],
    "recipe's model": lambda path, good: ["unlearn", good / "recipe.yaml", "--set", f"model={path}"],
    "study's model": lambda path, good: ["study", good / "spec.yaml", "--store", good / "store"],
}
"""What reads a directory of results -> arguments without --out."""
WRITERS: dict[str, Arguments] = {
    "locate": lambda path, good: ["locate", "tiny", "--text", good / "notes.txt"],
    "compare": lambda path, good: ["compare", "tiny", "tiny-retrained", "--text", good / "notes.txt"],
    "unlearn": lambda path, good: ["unlearn", good / "recipe.yaml"],
    "evaluate": lambda path, good: ["evaluate", "tiny", "--limit", 1, "--metrics", "verbmem"],
    "audit": lambda path, good: ["audit", "tiny", "--limit", 1, "--triggers", good / "triggers.txt"],
    "tiny": lambda path, good: ["tiny", "build"],
    "tiny-wmdp": lambda path, good: ["tiny", "build-wmdp"],
}
"""Kind of results -> the command that writes them; a study replaces its tables, see below."""


@pytest.fixture
def older(tmp_path: Path, kind: str) -> Path:
    """A directory with a model, as a kind that holds one has it, written by the version before this one."""
    path = tmp_path / "older"
    (path / "model").mkdir(parents=True)
    (path / "model" / "config.json").write_text("{}")
    _write_manifest(path, kind)
    return path


def _write_manifest(path: Path, kind: str) -> None:
    manifest = {"identity": "x", "kind": kind, "schema": KINDS[kind].version - 1, "files": {}}
    (path / "run.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_refuses_results_of_an_older_version(
    kind: str, older: Path, good_inputs: Path, tmp_path: Path
) -> None:
    (good_inputs / "spec.yaml").write_text(
        json.dumps({"grids": {"a": {"models": [str(older)]}, "b": {"set": {"model": str(older)}}}})
    )
    before = {path: path.read_bytes() for path in older.rglob("*") if path.is_file()}
    hint = f"remove it and make it again with `{KINDS[kind].command}`"
    for arguments in READERS.values():
        check_refused(
            sinkscope(*arguments(older, good_inputs), "--out", tmp_path / "o"), tmp_path / "o", hint
        )
    if kind in WRITERS:
        outcome = sinkscope(*WRITERS[kind](older, good_inputs), "--out", older)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert hint in outcome.err
    assert {path: path.read_bytes() for path in older.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".*")) and not (good_inputs / "store").exists()


def test_a_study_replaces_tables_of_an_older_version(good_inputs: Path, tmp_path: Path) -> None:
    (good_inputs / "spec.yaml").write_text(json.dumps({"grids": {"a": {"models": ["tiny"]}}}))
    (tmp_path / "out").mkdir()
    _write_manifest(tmp_path / "out", "study")
    arguments = ["study", good_inputs / "spec.yaml", "--store", good_inputs / "store", "--out"]
    assert sinkscope(*arguments, tmp_path / "out").code == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["schema"] == KINDS["study"].version
