"""An objective that a plugin registers: recipes can name it, with its parameters, and runs train with it."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field

from sinkscope import load
from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.config import Config
from sinkscope.errors import RecipeError
from sinkscope.unlearning.batch import Batch, Outputs, References
from sinkscope.unlearning.objectives import LOGITS, OBJECTIVES, nll, register_objective
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import train


class ScaledConfig(Config):
    scale: float = Field(1.0, gt=0)


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OBJECTIVES, "_values", dict(OBJECTIVES.items()))

    @register_objective("scaled_ascent", "forget", "predicted", outputs=[LOGITS], config=ScaledConfig)
    def scaled_ascent(
        batch: Batch, outputs: Outputs, references: References | None, config: ScaledConfig
    ) -> torch.Tensor:
        return -config.scale * nll(batch, outputs, references)


def test_a_recipe_validates_its_parameters() -> None:
    recipe = Recipe.parse({"objective": {"forget": "scaled_ascent", "scale": 3}})
    assert recipe.non_default() == {"objective": {"forget": "scaled_ascent", "scale": 3.0}}
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe
    for key, message in (({"scal": 3}, "did you mean 'objective.scale'"), ({"scale": 0}, "greater than 0")):
        with pytest.raises(RecipeError, match=message):
            Recipe.parse({"objective": {"forget": "scaled_ascent"} | key})


def test_a_run_trains_with_it() -> None:
    """Its first loss is the scaled one of gradient ascent."""
    losses = {}
    for objective in ({"forget": "grad_ascent"}, {"forget": "scaled_ascent", "scale": 2.0}):
        values = {"objective": objective, "optimizer": {"epochs": 1, "steps_per_epoch": 1}}
        _, log = train(Recipe.parse(values), load("tiny", "cpu"), load_benchmark("tiny"))
        losses |= log[0]
    assert losses["forget/scaled_ascent"] == pytest.approx(2 * losses["forget/grad_ascent"], rel=1e-5)
