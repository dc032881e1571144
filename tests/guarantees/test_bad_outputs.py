"""Places where no result can be: refused before the work, and left as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarantees import hostile
from tests.guarantees.reading import sinkscope


def _no_place(root: Path) -> Iterator[Path]:
    """Places where nothing can be written, or something lies that is not ours."""
    for name, make in hostile.PLACES.items():
        if name != "missing":
            make(root / name)
            yield root / name
    (root / "file").write_text("dear")
    yield root / "file"
    yield root / "file" / "below"
    (root / "letters").mkdir()
    (root / "letters" / "a.txt").write_text("dear")
    yield root / "letters"


def test_outputs_that_cannot_be_written_are_refused_and_left_alone(own: Path, tmp_path: Path) -> None:
    root = tmp_path / "places"
    root.mkdir()
    commands = {
        "locate": ["locate", "tiny", "--text", own / "notes.txt"],
        "evaluate": ["evaluate", "tiny", "--limit", 2, "--metrics", "verbmem"],
        "unlearn": ["unlearn", own / "recipe.yaml"],
    }
    for place in _no_place(root):
        before = sorted(path.name for path in root.rglob("*"))
        for arguments in commands.values():
            outcome = sinkscope(*arguments, "--out", place)
            assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
            assert str(place) in outcome.err or str(place.parent) in outcome.err
            assert sorted(path.name for path in root.rglob("*")) == before


def test_the_current_directory_is_no_place_for_results(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have to be replaced as a whole, with whoever stands in it."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    for arguments in (
        ["locate", "tiny", "--text", own / "notes.txt"],
        ["evaluate", "tiny", "--limit", 2, "--metrics", "verbmem"],
        ["unlearn", own / "recipe.yaml"],
        ["study", _one_run(own / "spec.yaml"), "--store", own / "store"],
    ):
        outcome = sinkscope(*arguments, "--out", ".")
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert "output . is the current directory" in outcome.err
        assert (
            not list(place.iterdir()) and not list(tmp_path.glob(".here*")) and not (own / "store").exists()
        )


def test_a_study_is_not_begun_for_a_link_that_leads_nowhere(own: Path, tmp_path: Path) -> None:
    for name in ("broken link", "loop of links"):
        hostile.PLACES[name](tmp_path / name)
        outcome = sinkscope(
            "study", _one_run(own / "spec.yaml"), "--store", own / "store", "--out", tmp_path / name
        )
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert f"output {tmp_path / name} is a link that leads nowhere" in outcome.err
        assert not (own / "store").exists()


def _one_run(path: Path) -> Path:
    path.write_text("seeds: [0]\ngrids: {a: {recipe: tiny/npo}}\n")
    return path


def test_a_study_and_its_store_have_places_of_their_own(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store.yaml").write_text("grids: {a: {models: [tiny]}}")
    for options in ([], ["--dry-run"], ["--out", "studies"], ["--out", "studies/store/x"]):
        outcome = sinkscope("study", "store.yaml", *options)
        assert outcome.code == 2 and "lie in one another; choose another place with --out" in outcome.err, (
            outcome
        )
        assert outcome.err.count("\n") == 1 and not (tmp_path / "studies").exists()
