"""Complete runs: log, files, the clean run before an aligned one, determinism."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from sinkscope import load
from sinkscope.unlearning import run as module
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import train, unlearn
from tests.unlearning.short_runs import SHORT, assert_same, weights


def test_the_log_has_every_term_and_the_splits_gradients(tmp_path: Path) -> None:
    out = unlearn(Recipe.parse(SHORT), tmp_path / "run")
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert records[0].keys() == {
        *(
            "step",
            "epoch",
            "loss",
            "grad_norm",
            "learning_rate",
            "forget/npo",
            "retain/kl",
            "poisoned/kl",
            "gradient/forget",
            "gradient/retain",
            "gradient/poisoned",
        )
    }
    assert records[0]["forget/npo"] == pytest.approx(13.863, abs=1e-3), "(2 / β) log 2 at the start"
    first = records[0]
    assert (
        first["grad_norm"]
        <= first["gradient/forget"] + first["gradient/retain"] + first["gradient/poisoned"] + 1e-6
    )


def test_auto_runs_clean_unlearning_once(tmp_path: Path) -> None:
    values = SHORT | {
        "value_norms": {"weight": 1.0, "unlearned": "auto"},
        "optimizer": {"epochs": 1, "steps_per_epoch": 2},
    }
    out = unlearn(Recipe.parse(values), tmp_path / "run")
    clean = tmp_path / "run-unlearned"
    assert (
        not (clean / "model" / "x").exists()
        and json.loads((clean / "run.json").read_text())["kind"] == "unlearn"
    )
    before = (clean / "run.json").stat().st_mtime_ns
    named = unlearn(
        Recipe.parse(values | {"value_norms": {"weight": 1.0, "unlearned": str(clean)}}), tmp_path / "named"
    )
    assert_same(weights(out), weights(named))
    assert (clean / "run.json").stat().st_mtime_ns == before
    assert "unlearned: auto" in (out / "recipe.yaml").read_text()
    assert unlearn(Recipe.parse(values), out) == out


def test_weights_have_the_dtype_of_the_precision(tmp_path: Path) -> None:
    for precision, dtype in (("mixed", torch.float32), ("bfloat16", torch.bfloat16)):
        values = {
            "poison_ratio": 0.2,
            "optimizer": {"epochs": 1, "steps_per_epoch": 3, "learning_rate": 1e-3, "precision": precision},
        }
        out = unlearn(Recipe.parse(values), tmp_path / precision)
        trained, before = weights(out), load("tiny").hf.state_dict()
        assert {weight.dtype for weight in trained.values()} == {dtype}
        assert any(
            not torch.equal(weight.float(), before[name].to(dtype).float())
            for name, weight in trained.items()
        )
        records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert records[0]["forget/npo"] == pytest.approx(13.863, abs=0.02), (
            "the reference is of the same precision"
        )
        assert records[0]["retain/kl"] < 1e-4


def test_time_is_not_part_of_a_result(tmp_path: Path) -> None:
    """Two runs of one recipe, in two processes' worth of state, give the same weights."""
    a = unlearn(Recipe.parse(SHORT), tmp_path / "a")
    torch.manual_seed(int(time.time()))
    assert_same(weights(a), weights(unlearn(Recipe.parse(SHORT), tmp_path / "b")))
    assert module.train is train
