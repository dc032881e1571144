"""Interrupted runs resume from the newest valid checkpoint with the same bits."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from sinkscope.errors import OutputError
from sinkscope.io.run_directory import create_run
from sinkscope.unlearning.checkpoints import Checkpoints
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from tests.unlearning.short_runs import SHORT, Interrupted, assert_same, interrupt_at, weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the short run, never interrupted."""
    return weights(unlearn(Recipe.parse(SHORT), tmp_path_factory.mktemp("whole") / "run"))


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_run_ends_with_the_same_bits(step: int, whole, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        unlearn(Recipe.parse(SHORT), out, interrupt_at(step), checkpoint_every=2)
    assert not out.exists()
    steps = []
    unlearn(Recipe.parse(SHORT), out, lambda done, total: steps.append(done), checkpoint_every=2)
    assert steps[0] == (step - 1) // 2 * 2 + 1, "from the newest checkpoint on"
    assert_same(weights(out), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "no checkpoint is left"


def test_the_log_of_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    recipe = Recipe.parse(SHORT | {"optimizer": {"epochs": 6, "steps_per_epoch": 2}})
    with pytest.raises(Interrupted):
        unlearn(recipe, tmp_path / "a", interrupt_at(8), checkpoint_every=3)
    a, b = unlearn(recipe, tmp_path / "a", checkpoint_every=3), unlearn(recipe, tmp_path / "b")
    assert (a / "log.jsonl").read_text() == (b / "log.jsonl").read_text()


def test_a_damaged_checkpoint_is_skipped_with_a_warning(whole, tmp_path: Path, caplog) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        unlearn(Recipe.parse(SHORT), out, interrupt_at(5), checkpoint_every=2)
    (folder,) = tmp_path.glob(".run.*.checkpoints")
    assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl", "step-00000002", "step-00000004"]
    damaged = folder / "step-00000004" / "rank-0.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    steps = []
    with caplog.at_level(logging.WARNING, "sinkscope"):
        unlearn(Recipe.parse(SHORT), out, lambda done, total: steps.append(done), checkpoint_every=2)
    assert "step-00000004 is damaged (rank-0.safetensors was changed) and is not used" in caplog.text
    assert steps[0] == 3
    assert_same(weights(out), whole)


@pytest.mark.parametrize("name", ["state.json", "rank-0.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_without_a_valid_checkpoint_a_run_starts_at_step_1(
    name: str, harm: str, whole, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        unlearn(Recipe.parse(SHORT), out, interrupt_at(4), checkpoint_every=3)
    (path,) = tmp_path.glob(f".run.*.checkpoints/*/{name}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) if harm == "cut" else path.unlink()
    steps = []
    unlearn(Recipe.parse(SHORT), out, lambda done, total: steps.append(done))
    assert steps[0] == 1
    assert_same(weights(out), whole)


def test_two_runs_in_one_directory_do_not_share_checkpoints(tmp_path: Path, monkeypatch) -> None:
    """However late the other one starts."""
    monkeypatch.setattr("sinkscope.unlearning.run.is_in_use", lambda out: False)
    with (
        create_run(tmp_path / "run", "abc", kind="unlearn", exclusive=True),
        pytest.raises(OutputError, match="run is being written by another process"),
    ):
        unlearn(Recipe.parse(SHORT), tmp_path / "run")


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", 1)
    checkpoints.save(3, [], {"weight/w": torch.ones(3)}, {})
    state = tmp_path / "c" / "step-00000003" / "state.json"
    content = json.loads(state.read_text())
    content["state"]["processes"] = 2
    import hashlib

    content["sha256"] = hashlib.sha256(json.dumps(content["state"]).encode()).hexdigest()
    state.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="made by 2 processes; start as many"):
        checkpoints.load()


def test_checkpoints_of_other_settings_go_with_the_run_that_is_done(tmp_path: Path) -> None:
    left, other = (tmp_path / f".run.{name}.checkpoints" for name in ("00abc", "longer.00abc"))
    for directory in (left, other):
        directory.mkdir()
    unlearn(Recipe.parse(SHORT), tmp_path / "run")
    assert not left.exists()
    assert other.exists(), "of the run `run.longer`"
