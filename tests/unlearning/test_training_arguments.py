"""Arguments of transformers' Trainer in a recipe: schedules, optimizers, trackers, and what is refused."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sinkscope import load
from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import RecipeError
from sinkscope.unlearning.checkpoints import Checkpoints
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import train, unlearn
from tests.unlearning.short_runs import SHORT, Interrupted, assert_same, interrupt_at, weights


def with_training(**training: object) -> Recipe:
    return Recipe.parse(SHORT | {"training": training})


def test_warm_up_and_cosine_schedule(tmp_path: Path) -> None:
    """Linear from 0 over two steps, then half a period of a cosine over the other four."""
    recipe = with_training(lr_scheduler_type="cosine", warmup_steps=2)
    out = unlearn(recipe, tmp_path / "run")
    rates = [json.loads(line)["learning_rate"] for line in (out / "log.jsonl").read_text().splitlines()]
    factors = [0, 0.5, *((1 + math.cos(math.pi * step / 4)) / 2 for step in range(4))]
    assert rates == pytest.approx([1.2e-4 * factor for factor in factors])


@pytest.mark.parametrize(
    "training",
    [
        {"lr_scheduler_type": "linear", "warmup_steps": 2},
        {"optim": "adafactor"},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"adam_beta2": 0.95, "lr_scheduler_type": "polynomial"},
    ],
    ids=["linear", "adafactor", "momentum", "polynomial"],
)
def test_a_resumed_run_has_the_same_bits_with_any_schedule_and_optimizer(
    training: dict, tmp_path: Path
) -> None:
    recipe = with_training(**training)
    with pytest.raises(Interrupted):
        unlearn(recipe, tmp_path / "resumed", interrupt_at(4), checkpoint_every=2)
    resumed, whole = unlearn(recipe, tmp_path / "resumed"), unlearn(recipe, tmp_path / "whole")
    assert_same(weights(resumed), weights(whole))
    assert (resumed / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    plain = unlearn(Recipe.parse(SHORT), tmp_path / "plain")
    with pytest.raises(AssertionError):
        assert_same(weights(plain), weights(whole))


def test_every_step_is_logged_to_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = unlearn(with_training(report_to="tensorboard"), tmp_path / "run")
    (directory,) = (tmp_path / "run-logs" / "runs").iterdir()
    accumulator = events.EventAccumulator(str(directory))
    accumulator.Reload()
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "forget/npo", "poisoned/kl"):
        logged = accumulator.Scalars(f"train/{name}")
        assert [each.step for each in logged] == [1, 2, 3, 4, 5, 6]
        assert [each.value for each in logged] == pytest.approx([record[name] for record in records])


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"lr_scheduler": "cosine"}, "key 'training.lr_scheduler' is unknown; did you mean 'training.lr_sch"),
        ({"learning_rate": 1e-3}, "training.learning_rate does not apply: set optimizer.learning_rate"),
        ({"lr_scheduler_type": "cosinus"}, "recipe training: cosinus is not a valid SchedulerType"),
        ({"warmup_steps": -3}, "recipe training: Got warmup_steps = -3"),
        ({"report_to": "dagshub"}, "training.report_to: dagshub is not installed"),
        ({"deepspeed": "zero3.json"}, "key 'training.deepspeed' is unknown; known keys: lr_scheduler_type"),
        ({"optim": "lomo"}, "training.optim: lomo is not one of adamw_torch_fused, adamw_torch, adafactor"),
        ({"adam_epsilon": "small"}, "training.adam_epsilon: must be a number"),
        ({"enable_jit_checkpoint": True}, "key 'training.enable_jit_checkpoint' is unknown"),
    ],
)
def test_arguments_that_do_not_apply_are_refused_before_anything_is_loaded(
    training: dict, message: str, tmp_path: Path
) -> None:
    recipe = Recipe.parse({"model": str(tmp_path / "missing"), "training": training})
    with pytest.raises(RecipeError, match=message) as caught:
        unlearn(recipe, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_the_log_grows_while_the_run_does(tmp_path: Path) -> None:
    lengths = []

    def count(done: int, total: int) -> None:
        (log,) = tmp_path.glob(".run.*.checkpoints/log.jsonl")
        lengths.append(len(log.read_text().splitlines()))

    out = unlearn(Recipe.parse(SHORT), tmp_path / "run", count)
    assert lengths == [0, 1, 2, 3, 4, 5], "before the record of the step that ends"
    assert len((out / "log.jsonl").read_text().splitlines()) == 6


def test_a_resumed_run_draws_the_same_dropout(tmp_path: Path) -> None:
    model = load("tiny", "cpu")
    model.hf.config.attention_dropout = 0.2
    model.save(tmp_path / "model")
    recipe = Recipe.parse(SHORT | {"model": str(tmp_path / "model")})
    with pytest.raises(Interrupted):
        unlearn(recipe, tmp_path / "resumed", interrupt_at(5), checkpoint_every=3)
    resumed, whole = unlearn(recipe, tmp_path / "resumed"), unlearn(recipe, tmp_path / "whole")
    assert_same(weights(resumed), weights(whole))
    with pytest.raises(AssertionError):
        assert_same(weights(whole), weights(unlearn(Recipe.parse(SHORT), tmp_path / "without")))


def test_nothing_else_changes_in_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random states, verbosity, accelerate's state, the model's configuration; also when a run fails."""
    import random

    import numpy as np
    from accelerate import PartialState
    from transformers.utils import logging

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    model, benchmark = load("tiny", "cpu"), load_benchmark("tiny")
    PartialState()
    for stop in (False, True):
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        others = logging.get_verbosity(), dict(PartialState._shared_state), dict(vars(model.hf.config))
        with pytest.raises(Interrupted) if stop else nullcontext():
            train(Recipe.parse(SHORT), model, benchmark, interrupt_at(2) if stop else None)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
        assert (logging.get_verbosity(), PartialState._shared_state, vars(model.hf.config)) == others
        assert not model.hf.training and not hasattr(model.hf, "_is_accelerate_prepared")
        assert all(weight.grad is None for weight in model.hf.parameters())
    whole = unlearn(Recipe.parse(SHORT), tmp_path / "mixed-by-the-launcher")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert_same(weights(whole), weights(unlearn(Recipe.parse(SHORT), tmp_path / "plain")))


def test_a_checkpoint_of_the_older_form_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import hashlib

    folder = tmp_path / "c" / "step-00000002"
    folder.mkdir(parents=True)
    save_file({"weight/w": torch.ones(1)}, folder / "rank-0.safetensors")
    digest = hashlib.sha256((folder / "rank-0.safetensors").read_bytes()).hexdigest()
    state = {"step": 2, "log": [], "sums": {}, "processes": 1, "files": {"rank-0.safetensors": digest}}
    content = {"state": state, "sha256": hashlib.sha256(json.dumps(state).encode()).hexdigest()}
    (folder / "state.json").write_text(json.dumps(content))
    assert Checkpoints(tmp_path / "c").load() is None
    assert "step-00000002 is damaged" in caplog.text
