"""The JSON schema of recipe files, for editors: it takes what `Recipe.read` takes, and no other keys."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from sinkscope.config import Config
from sinkscope.unlearning.objectives import LOGITS, OBJECTIVES, register_objective
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.recipe_files import named_recipes
from sinkscope.unlearning.recipe_schema import recipe_schema


def errors(values: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(recipe_schema()).iter_errors(values)]


def test_it_is_a_schema_of_all_keys_and_extends() -> None:
    schema = recipe_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["properties"].keys() == Recipe.model_fields.keys() | {"extends"}
    assert all(each.get("description") for each in schema["properties"].values())
    assert "required" not in schema


@pytest.mark.parametrize("name", list(named_recipes()))
def test_built_in_recipes_are_valid_as_files_and_resolved(name: str) -> None:
    assert errors(yaml.safe_load(named_recipes()[name].read_text(encoding="utf-8"))) == []
    assert errors(yaml.safe_load(Recipe.read(name).to_yaml())) == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"extends": "base.yaml", "objective": {"beta": 0.3}},
        {"objective": {"steering_coeff": 20}},
        {"objective": {"forget": "none", "retain": {"nll": 1}}},
        {"update": {"lora": {}}},
    ],
)
def test_parts_of_a_recipe_are_valid(values: dict[str, Any]) -> None:
    assert errors(values) == []


@pytest.mark.parametrize(
    "values",
    [
        {"sed": 3},
        {"trigger": {"txt": "now"}},
        {"objective": {"bta": 0.3}},
        {"objective": {"forget": "rmu", "beta": 0.3}},
        {"objective": {"forget": "kl"}},
        {"objective": {"retain": {"kll": 1}}},
        {"objective": {"retain": {"kl": 0}}},
        {"extends": ["base.yaml"]},
        {"extends": None},
        {"extends": ""},
        {"poison_ratio": 2},
    ],
)
def test_other_keys_and_impossible_values_are_not(values: dict[str, Any]) -> None:
    assert len(errors(values)) == 1


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OBJECTIVES, "_values", dict(OBJECTIVES.items()))
    monkeypatch.setattr(OBJECTIVES, "_hashes", dict(OBJECTIVES._hashes))

    class Scale(Config):
        scale: float = 1.0

    register_objective("scaled", "forget", "predicted", outputs=[LOGITS], config=Scale)(lambda: None)
    register_objective("kept", "retain", "predicted", outputs=[LOGITS])(lambda: None)


@pytest.mark.usefixtures("plugin")
def test_objectives_of_plugins_are_in_it() -> None:
    for values in ({"forget": "scaled", "scale": 2.0}, {"scale": 2.0}, {"retain": {"kept": 1}}):
        assert errors({"objective": values}) == []
    assert len(errors({"objective": {"forget": "npo", "scale": 2.0}})) == 1
