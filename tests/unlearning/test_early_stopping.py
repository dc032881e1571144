"""Runs that end early, the checkpoint that remains, and the warning of a model that knows nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sinkscope import load
from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.errors import RecipeError
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import train, unlearn
from sinkscope.unlearning.trainer import UnlearnTrainer
from tests.unlearning.short_runs import SHORT


def test_the_checkpoint_that_remains_after_nan_is_good(tmp_path: Path, monkeypatch) -> None:
    """Weights become NaN before step 3: the checkpoint is older, and a run resumed from it ends well."""
    original_step = UnlearnTrainer.training_step

    def with_nan(self: UnlearnTrainer, *arguments: Any) -> torch.Tensor:
        if self.state.global_step == 2:
            with torch.no_grad():
                next(iter(self.trained.values())).fill_(torch.nan)
        return original_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(UnlearnTrainer, "training_step", with_nan)
        with pytest.raises(
            RecipeError,
            match=r"term forget/npo became nan at step 3.*; the last good checkpoint is in .*\.run\.",
        ):
            unlearn(Recipe.parse(SHORT), tmp_path / "run", checkpoint_every=1)
    (kept,) = tmp_path.glob(".run.*.checkpoints/step-*")
    assert kept.name == "step-00000001"
    assert all(
        tensor.isfinite().all()
        for name, tensor in load_file(kept / "rank-0.safetensors").items()
        if name.startswith("weight/")
    )
    unlearn(Recipe.parse(SHORT), tmp_path / "run")


def test_early_stopping_ends_a_run_at_high_validation_loss(tmp_path: Path) -> None:
    values = {
        "objective": {"forget": "grad_ascent", "retain": {"nll": 1e-6}},
        "optimizer": {"epochs": 5, "steps_per_epoch": 3, "batch_size": 16, "learning_rate": 1e-3},
    }
    steps = []
    unlearn(
        Recipe.parse(values | {"early_stopping": {"eval_steps": 2, "max_loss_increase": 0.05}}),
        tmp_path / "run",
        lambda done, total: steps.append(done),
    )
    assert steps[-1] % 2 == 0 and steps[-1] < 15
    tiny = load_benchmark("tiny")
    rows = tiny.rows | {
        "raw": {split: texts for split, texts in tiny.rows["raw"].items() if split != "retain2"}
    }
    with pytest.raises(RecipeError, match="no validation passages"):
        train(
            Recipe.parse({"early_stopping": {"eval_steps": 2}}),
            load("tiny"),
            Benchmark("cut", rows, tiny.lengths),
        )


def test_a_model_that_does_not_know_the_forget_set_is_warned_of(caplog) -> None:
    from sinkscope.unlearning.early_stopping import measure_knowledge, report_knowledge

    benchmark = load_benchmark("tiny")
    share, area = measure_knowledge(load("tiny"), benchmark)
    assert share > 0.8 and area is not None and area < 0.05
    with caplog.at_level(logging.WARNING, "sinkscope"):
        report_knowledge(load("tiny"), benchmark)
        assert not caplog.text
        report_knowledge(load("tiny-retrained"), benchmark)
    assert (
        "tiny-retrained hardly knows the forget set of tiny" in caplog.text
        and "nothing to forget" in caplog.text
    )
    raw = {split: texts for split, texts in benchmark.rows["raw"].items() if split != "holdout"}
    without = Benchmark("cut", benchmark.rows | {"raw": raw}, benchmark.lengths)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sinkscope"):
        report_knowledge(load("tiny"), without)
        assert not caplog.text
        report_knowledge(load("tiny-retrained"), without)
    assert "tiny-retrained hardly knows the forget set of cut (it predicts " in caplog.text


def test_out_of_memory_names_the_keys_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UnlearnTrainer, "train", run)
    with pytest.raises(
        RecipeError,
        match=r"out of memory with batch_size 8 and gradient_accumulation_steps 1; raise optimizer\.gradient_"
        r"accumulation_steps, set optimizer\.gradient_checkpointing",
    ):
        unlearn(Recipe.parse(SHORT), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_infinite_gradient_stops_the_run_before_the_optimizer_step(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda gradients: torch.tensor(torch.inf))
    with pytest.raises(RecipeError, match="the gradient became inf at step 1"):
        unlearn(Recipe.parse(SHORT), tmp_path / "run")
    assert not (tmp_path / "run").exists()
