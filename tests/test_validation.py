"""What pydantic finds wrong, in plain words: for every key of recipes and studies and every kind of value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from sinkscope.config import explain_validation_error
from sinkscope.errors import RecipeError
from sinkscope.studies.spec import Spec
from sinkscope.unlearning.recipe import Recipe

ITS_OWN = re.compile(
    r"[Ii]nput|pydantic|[A-Z]\w*Part|instance|valid |[Ff]ield|\bdict|\bstr\b|\bint\b|\bNone\b.*should|constrained|literal\[|list\[|unable|parse"
)
"""Words of pydantic's, and of Python's types."""
WRONG: list[Any] = [
    "",
    "many",
    "1.5",
    1.5,
    -1,
    10**400,
    float("nan"),
    True,
    None,
    [],
    ["a"],
    [[1]],
    {},
    {"a": 1},
    {"a": {"b": [1]}},
    {1: 2},
]


def keys(model: type[BaseModel], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to every key; `x` stands for a name in a mapping."""
    for name, field in model.model_fields.items():
        yield (*before, name)
        for inner in _models(field.annotation):
            named = str(field.annotation).startswith("dict[")
            yield from keys(inner, (*before, name, "x") if named else (*before, name))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


@pytest.mark.parametrize("root", [Recipe, Spec])
def test_whatever_is_wrong_is_told_in_plain_words(root: type[BaseModel]) -> None:
    told = 0
    for way in keys(root):
        for value in WRONG:
            values: Any = value
            for key in reversed(way):
                values = {key: values}
            if root is Spec:
                values = {"grids": {"x": {}}} | values
            try:
                root.model_validate(values)
            except ValidationError as error:
                line = explain_validation_error(error, root, "file", values)
                told += 1
                said = line.partition(" (got ")[0]
                assert not ITS_OWN.search(said.replace("'none'", "")), line
                assert "\n" not in line and len(line) < 1500 and line.startswith("file")
    assert told > 300


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "many"}, "recipe seed: must be a whole number (got 'many')"),
        ({"seed": 1.5}, "recipe seed: must be a whole number (got '1.5')"),
        ({"trigger": 3}, "recipe trigger: must be a group of keys (got '3')"),
        (
            {"trigger": {"text": 3}},
            "recipe trigger.text: must be text (in quotes, if it looks like something else) (got '3')",
        ),
        (
            {"optimizer": {"checkpointing": "perhaps"}},
            "recipe optimizer.checkpointing: must be true or false (got 'perhaps')",
        ),
        (
            {"value_norms": {"layers": "first"}},
            "recipe value_norms.layers: must be a list or 'last' or 'all' (got 'first')",
        ),
        ({"value_norms": {"layers": ["a"]}}, "recipe value_norms.layers.0: must be a whole number (got 'a')"),
        (
            {"objective": {"retain": {"kll": 1}}},
            "recipe objective.retain.kll: must be 'kl', 'nll' or 'activations' (got 'kll')",
        ),
        ({"objective": {"retain": {}}}, "recipe objective.retain: must have at least 1 entry (got '{}')"),
        ({"poison_ratio": float("inf")}, "recipe poison_ratio: must be a finite number (got 'inf')"),
        ({1: 2}, "recipe 1: keys must be text; put them in quotes (got '1')"),
    ],
)
def test_the_mend_is_in_the_line(values: dict[Any, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(values)
    assert str(caught.value) == message
