"""Output paths that cannot hold results are refused before any computation, and are not changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarantees import hostile
from tests.guarantees.reading import sinkscope


def _bad_outputs(root: Path) -> Iterator[Path]:
    """Paths that cannot be written, or that hold files of the user."""
    for name, make in hostile.NOT_FILES.items():
        if name != "missing":
            make(root / name)
            yield root / name
    (root / "file").write_text("dear")
    yield root / "file"
    yield root / "file" / "below"
    (root / "letters").mkdir()
    (root / "letters" / "a.txt").write_text("dear")
    yield root / "letters"


def test_outputs_that_cannot_be_written_are_refused_and_not_changed(
    good_inputs: Path, tmp_path: Path
) -> None:
    root = tmp_path / "places"
    root.mkdir()
    commands = {
        "locate": ["locate", "tiny", "--text", good_inputs / "notes.txt"],
        "evaluate": ["evaluate", "tiny", "--limit", 2, "--metrics", "verbmem"],
        "unlearn": ["unlearn", good_inputs / "recipe.yaml"],
    }
    for out in _bad_outputs(root):
        before = sorted(path.name for path in root.rglob("*"))
        for arguments in commands.values():
            outcome = sinkscope(*arguments, "--out", out)
            assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
            assert str(out) in outcome.err or str(out.parent) in outcome.err
            assert sorted(path.name for path in root.rglob("*")) == before


def test_the_current_directory_is_refused_as_output(
    good_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results replace their directory, which may not be the working directory of a process."""
    out = tmp_path / "here"
    out.mkdir()
    monkeypatch.chdir(out)
    for arguments in (
        ["locate", "tiny", "--text", good_inputs / "notes.txt"],
        ["evaluate", "tiny", "--limit", 2, "--metrics", "verbmem"],
        ["unlearn", good_inputs / "recipe.yaml"],
        ["study", _one_run(good_inputs / "spec.yaml"), "--store", good_inputs / "store"],
    ):
        outcome = sinkscope(*arguments, "--out", ".")
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert "output . is the current directory" in outcome.err
        assert (
            not list(out.iterdir())
            and not list(tmp_path.glob(".here*"))
            and not (good_inputs / "store").exists()
        )


def test_a_study_is_not_started_if_its_output_is_a_broken_symlink(good_inputs: Path, tmp_path: Path) -> None:
    for name in ("broken symlink", "symlink loop"):
        hostile.NOT_FILES[name](tmp_path / name)
        outcome = sinkscope(
            "study",
            _one_run(good_inputs / "spec.yaml"),
            "--store",
            good_inputs / "store",
            "--out",
            tmp_path / name,
        )
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert f"output {tmp_path / name} is a link that leads nowhere" in outcome.err
        assert not (good_inputs / "store").exists()


def _one_run(path: Path) -> Path:
    path.write_text("seeds: [0]\ngrids: {a: {recipe: tiny/npo}}\n")
    return path


def test_a_study_and_its_store_may_not_contain_each_other(
    good_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store.yaml").write_text("grids: {a: {models: [tiny]}}")
    for options in ([], ["--dry-run"], ["--out", "studies"], ["--out", "studies/store/x"]):
        outcome = sinkscope("study", "store.yaml", *options)
        assert (
            outcome.code == 2 and "are inside one another; choose another output directory" in outcome.err
        ), outcome
        assert outcome.err.count("\n") == 1 and not (tmp_path / "studies").exists()
