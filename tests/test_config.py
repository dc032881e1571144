"""Configuration files: messages for every key and kind of value, deprecated keys, YAML, overrides."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar, get_args

import pytest
from pydantic import BaseModel, ValidationError

from sinkscope.config import Config, explain_validation_error, merge_values, parse_yaml, validate_config
from sinkscope.errors import RecipeError
from sinkscope.studies.spec import Spec
from sinkscope.unlearning.recipe import Recipe

WRONG_VALUES: list[Any] = [
    *("", "many", "1.5", 1.5, -1, 10**400, float("nan"), True, None),
    *([], ["a"], [[1]], {}, {"a": 1}, {"a": {"b": [1]}}, {1: 2}),
]


def paths_of(model: type[BaseModel], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key; `x` is the name of an entry in a mapping."""
    for name, field in model.model_fields.items():
        yield (*parents, name)
        for nested in _nested_models(field.annotation):
            is_mapping = str(field.annotation).startswith("dict[")
            yield from paths_of(nested, (*parents, name, "x") if is_mapping else (*parents, name))


def _nested_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _nested_models(argument)]


@pytest.mark.parametrize("root", [Recipe, Spec])
def test_every_error_is_one_line_that_names_the_key(root: type[Config]) -> None:
    n_errors = 0
    for path in paths_of(root):
        for value in WRONG_VALUES:
            values: Any = value
            for key in reversed(path):
                values = {key: values}
            if root is Spec:
                values = {"grids": {"x": {}}} | values
            try:
                root.model_validate(values)
            except ValidationError as error:
                line = explain_validation_error(error, root, "file", values)
                n_errors += 1
                assert line.startswith("file") and "\n" not in line and len(line) < 1500
                message, _, _ = line.partition(" (got ")
                assert "pydantic" not in message and "Config" not in message.split(":")[0], line
    assert n_errors > 300


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, "recipe key 'sed' is unknown; did you mean 'seed'?"),
        ({"trigger": {"txt": "a"}}, "recipe key 'trigger.txt' is unknown; did you mean 'trigger.text'?"),
        (
            {"seed": 1.5},
            "recipe seed: must be a valid integer, got a number with a fractional part (got '1.5')",
        ),
        ({"trigger": {"text": 3}}, "recipe trigger.text: must be a valid string (got '3')"),
        (
            {"value_norms": {"layers": ["a"]}},
            "recipe value_norms.layers.0: must be a valid integer, "
            "unable to parse string as an integer (got 'a')",
        ),
        (
            {"value_norms": {"layers": "first"}},
            "recipe value_norms.layers: must be a valid list or 'last' or 'all' (got 'first')",
        ),
        ({"poison_ratio": float("inf")}, "recipe poison_ratio: must be a finite number (got 'inf')"),
        ({1: 2}, "recipe 1: Keys should be strings (got '1')"),
        ({"poison_ratio": 2}, "recipe poison_ratio: must be less than or equal to 1 (got '2')"),
    ],
)
def test_messages(values: dict[Any, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validate_config(Recipe, values, "recipe", RecipeError)
    assert str(caught.value) == message


class Inner(Config):
    deprecated_keys: ClassVar = {"batches": "steps", "accumulation": "splits"}
    steps: int = 0
    splits: int = 0


class Outer(Config):
    deprecated_keys: ClassVar = {"optimiser": "optimizer", "split": "originals"}
    deprecated_values: ClassVar = {"originals": {"contrastive": "keep"}}
    optimizer: Inner = Inner()
    originals: str = "drop"


def test_deprecated_keys_and_values_are_replaced_with_a_warning(caplog) -> None:
    with caplog.at_level(logging.WARNING, "sinkscope"):
        outer = Outer.model_validate({"optimiser": {"batches": 3}, "split": "contrastive"})
    assert outer == Outer(optimizer=Inner(steps=3), originals="keep")
    assert any("'batches' is now called 'steps'" in line for line in caplog.messages)
    assert any("'contrastive' of 'originals' is now called 'keep'" in line for line in caplog.messages)


def test_groups_under_old_and_new_keys_are_merged_unless_they_overlap() -> None:
    outer = Outer.model_validate({"optimiser": {"batches": 3}, "optimizer": {"splits": 2}})
    assert outer.optimizer == Inner(steps=3, splits=2)
    with pytest.raises(RecipeError, match="recipe optimizer: 'batches' is the old name of 'steps'"):
        values = {"optimizer": {"batches": 3, "steps": 2}}
        validate_config(Outer, values, "recipe", RecipeError)


def test_errors_under_a_deprecated_key_name_the_new_one() -> None:
    with pytest.raises(RecipeError, match=r"recipe optimizer\.steps: must be a valid integer"):
        validate_config(Outer, {"optimiser": {"batches": "many"}}, "recipe", RecipeError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "line 2: aliases are not supported; write out the value of &x$"),
        ("a: &x {b: 1}\nc: {<<: *x}", "line 2: aliases are not supported; write out the value of &x$"),
        ("a: {b: 1,\n b: 2}", "line 1: the key 'b' is given more than once"),
        ("a: !!python/name:os.system ''", "line 1: could not determine a constructor for the tag"),
        ("[" * 100_000, "nested too deep"),
        ("a: " + "1:" * 1000 + "1", "a number has 2,001 characters"),
        (r'a: "\ud800"', r"'\\ud800' is not text"),
        ("a: \x00", "unacceptable character"),
        ("a: [", "line 1: expected the node content"),
    ],
)
def test_yaml_outside_the_strict_subset_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_yaml_that_is_only_checked_may_have_any_tags() -> None:
    assert parse_yaml("a: !function utils.f\n", construct=False) is None
    assert parse_yaml("") is None and parse_yaml("a: [1, 0x10, x]") == {"a": [1, 16, "x"]}


def test_groups_are_merged_and_names_are_replaced() -> None:
    base = {"quick": {"seeds": [0]}, "models": {"a": {"seed": 1}, "b": {}}, "seeds": [0, 1]}
    values = {"quick": {}, "models": {"a": {"steps": 2}}, "seeds": [2]}
    merged = merge_values(Spec, base, values)
    assert merged == {"quick": {"seeds": [0]}, "models": {"a": {"steps": 2}}, "seeds": [2]}
    assert base["models"] == {"a": {"seed": 1}, "b": {}}, "the base is left as it is"
