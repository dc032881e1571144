"""A short recipe, its interruption at a step, and bitwise comparison of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from sinkscope.benchmarks.chunking import Passage
from sinkscope.models.model import Model
from sinkscope.unlearning.batch import BatchPlan, References
from sinkscope.unlearning.checkpoints import Log
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.trainer import UnlearnTrainer
from sinkscope.unlearning.training_arguments import make_training_arguments
from sinkscope.unlearning.value_norm import ValueNormTerm

SHORT = {"poison_ratio": 0.1, "optimizer": {"epochs": 3, "steps_per_epoch": 2}}  # 6 steps


def as_passages(tokens: list[list[int]], n_prompt: list[int] | None = None) -> list[Passage]:
    """Passages of these tokens, each with a prompt of `n_prompt`, by default none."""
    lengths = n_prompt or [0] * len(tokens)
    return [Passage(each, 0, 0, prompt_length=length) for each, length in zip(tokens, lengths, strict=True)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def train_on(
    model: Model,
    recipe: Recipe,
    passages: dict[str, list[Passage]],
    references: Mapping[str, References],
    value_norms: ValueNormTerm | None,
    directory: Path,
) -> Log:
    """Train on given passages; returns a record per step."""
    n_steps = len(BatchPlan.of(passages, recipe.optimizer, recipe.seed))
    args = make_training_arguments(recipe, n_steps, directory, model.device)
    trainer = UnlearnTrainer(model.hf, recipe, passages, references, args, value_norms)
    trainer.train()
    return trainer.state.log_history[:-1]


class Interrupted(Exception):
    pass


def interrupt_at(step: int):
    def report(done: int, total: int) -> None:
        if done == step:
            raise Interrupted

    return report
