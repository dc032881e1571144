"""The cost estimate against the run that it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sinkscope import load
from sinkscope.errors import PlacementError, RecipeError
from sinkscope.unlearning.cost_estimate import estimate_cost
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.recipe_files import named_recipes
from sinkscope.unlearning.run import unlearn


def test_an_estimate_has_the_steps_and_parameters_of_the_run(tmp_path: Path) -> None:
    values = {
        "poison_ratio": 0.1,
        "optimizer": {"epochs": 2, "steps_per_epoch": 3, "gradient_accumulation_steps": 2},
        "update": {"modules": ["q_proj"], "lora": {"rank": 2}},
    }
    recipe, steps = Recipe.parse(values), []
    estimate = estimate_cost(recipe)
    unlearn(recipe, tmp_path / "run", lambda done, total: steps.append((done, total)))
    assert steps[-1] == (estimate.steps, estimate.steps)
    assert estimate.parameters == load("tiny").hf.num_parameters()
    assert estimate.trained == 4 * 2 * (128 + 128)
    assert estimate.passages["poisoned"] == round(0.1 * estimate.passages["forget"])
    assert 0 < estimate.minutes < 30 and 0.005 < estimate.memory_gb < 5 and estimate.unknown is None


def test_microbatches_and_fewer_trained_weights_need_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinkscope.unlearning.cost_estimate.measure_flops", lambda: 1e11)
    full = estimate_cost(Recipe())
    accumulated = estimate_cost(Recipe.parse({"optimizer": {"gradient_accumulation_steps": 8}}))
    rmu = estimate_cost(Recipe.parse({"objective": {"forget": "rmu", "retain": {"activations": 1}}}))
    assert accumulated.memory_gb < full.memory_gb
    assert rmu.memory_gb < full.memory_gb
    assert rmu.minutes < full.minutes
    assert rmu.trained < full.trained


@pytest.mark.parametrize("name", [name for name in named_recipes() if not name.startswith("tiny")])
def test_a_recipe_without_its_model_says_what_is_unknown(name: str) -> None:
    """Offline, so the model is unknown."""
    estimate = estimate_cost(Recipe.read(name))
    assert estimate.unknown is not None and "model" in estimate.unknown and estimate.steps is None


def test_a_recipe_that_does_not_fit_the_model_is_refused() -> None:
    for values, message in (
        ({"objective": {"forget": "rmu", "layer": 9, "retain": {"activations": 1}}}, "layers 0 to 3, not 9"),
        ({"poisoned_originals": "drop", "poison_ratio": 1.0}, "leaves nothing to forget"),
        ({"update": {"modules": ["router"]}}, "no module of the model is called router"),
        ({"value_norms": {"kind": "shrink", "weight": 1, "layers": [7]}}, "7 does not attend"),
    ):
        with pytest.raises(RecipeError, match=message):
            estimate_cost(Recipe.parse(values))


def test_a_trigger_that_does_not_fit_the_passages_is_refused() -> None:
    for values in ({"placement": "index:5000"}, {"placement": "index:60", "response": "Nobody knows."}):
        with pytest.raises(PlacementError, match="is beyond the passage"):
            estimate_cost(
                Recipe.parse({"poison_ratio": 0.1, "trigger": values, "objective": {"retain": {"nll": 1}}})
            )
    assert estimate_cost(Recipe.parse({"poison_ratio": 0.1, "trigger": {"placement": "sink:2"}})).steps
    assert estimate_cost(Recipe.parse({"trigger": {"placement": "index:5000"}})).steps, (
        "without poison it goes nowhere"
    )


def test_a_dry_run_is_a_recipe_with_the_estimate_as_comments(tmp_path: Path, capsys, monkeypatch) -> None:
    import sys

    from sinkscope.cli import main

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sinkscope", "unlearn", *arguments, "--dry-run"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0
        return capsys.readouterr().out

    text = run("tiny/npo-backdoor")
    assert "# steps: 278\n" in text and "# memory: about" in text and "# time: about" in text
    (tmp_path / "recipe.yaml").write_text(text)
    assert Recipe.read(tmp_path / "recipe.yaml") == Recipe.read("tiny/npo-backdoor")
    assert json.loads(run("tiny/rmu", "--json"))["plan"]["steps"] > 0
