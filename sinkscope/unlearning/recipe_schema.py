"""The JSON schema of recipe files, with which editors complete and check them."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from sinkscope.unlearning.objective_config import ObjectiveConfig, objective_config_of
from sinkscope.unlearning.objectives import NONE, OBJECTIVES, Role
from sinkscope.unlearning.recipe import EXTENDS, Recipe

EXTENDED = (
    "Another recipe, by its name or by its path from this file; the values of this file are merged over its."
)


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe's file: the keys of `Recipe`, none of them required, and `extends`.

    Objectives of plugins are in it once they are registered. Deprecated names of keys are not.
    """
    objectives = reduce(or_, map(_objective_model, [*_names("forget"), NONE]))
    fields: dict[str, Any] = {
        EXTENDS: (str, Field(default_factory=str, min_length=1, description=EXTENDED)),
        "objective": (objectives, Recipe.model_fields["objective"]),
    }
    return create_model(Recipe.__name__, __base__=Recipe, **fields).model_json_schema()


def _objective_model(forget: str) -> Any:
    """The `objective` block of one forget objective, which a file that extends another need not name."""
    known = ObjectiveConfig.model_fields
    names: Any = Literal[tuple(_names("retain"))]
    fields: dict[str, Any] = {
        "forget": (Literal[forget], Field(default_factory=str, description=known["forget"].description)),
        "retain": (dict[names, Annotated[float, Field(gt=0)]], known["retain"]),
    }
    return create_model(forget, __base__=objective_config_of({"forget": forget}), **fields)


def _names(role: Role) -> list[str]:
    return [name for name, objective in OBJECTIVES.items() if objective.role == role]
