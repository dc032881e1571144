"""Configuration files: strict pydantic models, YAML, overrides, deprecated keys and messages of one line."""

from __future__ import annotations

import copy
import functools
import logging
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sinkscope.errors import RecipeError, UserError, suggest
from sinkscope.io.readers import MAX_CONFIG_BYTES, is_text, read_text

LOGGER = logging.getLogger("sinkscope")
MAX_DIGITS = 1000
NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
Model = TypeVar("Model", bound="Config")


class Config(BaseModel):
    """Base of everything that is read from YAML: unknown keys, infinities and NaN are refused.

    Old names keep working for one release, with a line in the log of `sinkscope`:

        class OptimizerConfig(Config):
            deprecated_keys = {"batches": "steps_per_epoch"}
            deprecated_values = {"precision": {"half": "float16"}}
    """

    # the text below a field is its description, of which the pages on recipes and studies are made
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    deprecated_keys: ClassVar[Mapping[str, str]] = {}
    """Old key -> new key."""
    deprecated_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {}
    """New key -> old value -> new value."""

    @model_validator(mode="before")
    @classmethod
    def _validate_deprecated(cls, values: Any) -> Any:
        return cls.replace_deprecated(values) if isinstance(values, dict) else values

    @classmethod
    def replace_deprecated(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with deprecated names of this group replaced; ValueError if a key is given under both."""
        values = dict(values)
        for old, new in cls.deprecated_keys.items():
            if old in values:
                warn_once(f"the key {old!r} is now called {new!r}; the old name will be removed")
                values[new] = _merge(old, values.pop(old), new, values)
        for key, replacements in cls.deprecated_values.items():
            value = values.get(key)
            if isinstance(value, str | bool | int) and value in replacements:
                new = values[key] = replacements[value]
                warn_once(
                    f"the value {value!r} of {key!r} is now called {new!r}; the old one will be removed"
                )
        return values


def _merge(old: str, value: Any, new: str, values: Mapping[str, Any]) -> Any:
    """The value of a deprecated key, together with the group of keys under its new name."""
    if new not in values:
        return value
    other = values[new]
    if isinstance(value, dict) and isinstance(other, dict) and not value.keys() & other.keys():
        return value | other
    raise ValueError(f"{old!r} is the old name of {new!r}, which is given too; leave out {old!r}")


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, once per process."""
    LOGGER.warning(message)


def replace_deprecated(model: type[Config], values: Any) -> Any:
    """`values` with deprecated keys and values of `model` replaced, also in nested groups.

    A group with a key under both names stays as it is; its validation fails.
    """
    if not isinstance(values, dict):
        return values
    try:
        values = model.replace_deprecated(values)
    except ValueError:
        return values
    for key in model.model_fields:
        if key in values and (group := _group_model(model, key)) is not None:
            values[key] = replace_deprecated(group, values[key])
    return values


def merge_values(model: type[Config], base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `values` over it: groups of keys of `model` are merged, all other values replaced.

    A list is replaced as a whole, and so is a mapping of names to values.
    """
    merged = dict(base)
    for key, value in values.items():
        group = _group_model(model, key)
        is_merged = group is not None and isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge_values(group, base[key], value) if is_merged else value
    return merged


def _group_model(model: type[Config], key: str) -> Any:
    """The model of the group of keys that is called `key`; None if it is a value, or unknown."""
    field = model.model_fields.get(key)
    if field is None or get_origin(field.annotation) is dict:
        return None
    return next(_nested_models(field.annotation), None)


def replace_deprecated_overrides(model: type[Config], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted `overrides` with deprecated keys and values replaced; RecipeError if both names are given."""
    result: dict[str, Any] = {}
    for dotted, value in overrides.items():
        nested = replace_deprecated(model, apply_overrides({}, {dotted: value}))
        keys = []
        for _ in dotted.split("."):
            ((key, nested),) = nested.items()
            keys.append(key)
        new = ".".join(keys)
        if new in result:
            raise RecipeError(f"{new!r} is given by its old name too; leave out the old name")
        result[new] = nested
    return result


def validate_config(
    model: type[Model],
    values: Any,
    label: str,
    error_class: type[UserError],
    described_by: type[Config] | None = None,
) -> Model:
    """Validate the values of a configuration file, which is a `label` (a recipe, a study).

    `error_class` is raised if a key is unknown (the nearest known one of `described_by`, by default `model`,
    is named) or a value is impossible.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise error_class(explain_validation_error(error, described_by or model, label, values)) from error


def explain_validation_error(error: ValidationError, model: type[Config], label: str, values: Any) -> str:
    """The first error in `values` as one line with its dotted key; unknown keys come before other errors."""
    errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = errors[0]
    old_keys = {new: old for each in _models_in(model) for old, new in each.deprecated_keys.items()}
    path = _path(first["loc"], values, old_keys)
    dotted = ".".join(part[:80] for part in path)
    if first["type"] == "extra_forbidden":
        prefix = "".join(f"{part}." for part in path[:-1])
        hint = suggest(path[-1], _model_at(model, path[:-1]).model_fields, "known keys", prefix)
        return f"{label} key {dotted!r} is unknown; {hint}"
    alternatives = [each["msg"] for each in errors if _path(each["loc"], values, old_keys) == path]
    message = " or ".join(dict.fromkeys(alternatives)).removeprefix("Value error, ")
    message = message.replace("Input should be", "must be").replace(" or must be", " or")
    if not path or first["type"] == "missing":
        return f"{label} {dotted}".strip() + f": {message}"
    value = first["input"] if isinstance(first["input"], str) else reprlib.repr(first["input"])
    return f"{label} {dotted}: {message} (got {value[:80]!r})"


def _path(loc: Sequence[int | str], values: Any, old_keys: Mapping[str, str]) -> list[str]:
    """The keys and list indices of an error, without the names of types that pydantic puts between them."""
    path = []
    for part in loc:
        key = part if isinstance(values, dict) and part in values else old_keys.get(str(part), part)
        is_index = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if is_index or (isinstance(values, dict) and key in values):
            path.append(str(part))
            values = values[key]
        elif isinstance(values, dict) and "[" not in str(part):  # a missing key
            path.append(str(part))
    return path


def _model_at(model: Any, path: Sequence[str]) -> Any:
    """The model of a group of keys; names of entries in a mapping have none."""
    for part in path:
        if part in model.model_fields:
            model = next(_nested_models(model.model_fields[part].annotation), model)
    return model


def _nested_models(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for argument in get_args(annotation):
        yield from _nested_models(argument)


def _models_in(model: Any) -> Iterator[Any]:
    yield model
    for field in model.model_fields.values():
        for nested in _nested_models(field.annotation):
            yield from _models_in(nested)


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """`["a.b=c"]` as `{"a.b": c}`, with values read as YAML."""
    overrides = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise RecipeError(f"override {assignment!r} must be key=value, as in trigger.placement=infix")
        try:
            overrides[key.strip()] = parse_yaml(value)
        except ValueError as error:
            message = f"override {assignment[:200]!r} is not YAML ({error}); quote the value"
            raise RecipeError(message) from error
    return overrides


def apply_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `values` with dotted keys set."""
    result = copy.deepcopy(dict(values))
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        group = result
        for parent in parents:
            group = group.setdefault(parent, {})
            if not isinstance(group, dict):
                raise RecipeError(f"recipe key {dotted!r}: {parent!r} is a value, not a group of keys")
        group[last] = copy.deepcopy(value)
    return result


class StrictLoader(yaml.SafeLoader):
    """YAML without aliases and duplicate keys; its scalars are valid text, its numbers of bounded length.

    Aliases (`*name`), also those of merge keys (`<<: *name`), are refused, as a few nested ones can stand for
    gigabytes. Write the value of the anchor (`&name`) out at each place instead; an anchor alone is allowed.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = ""
        node = None
        if isinstance(event, yaml.AliasEvent):
            problem = f"aliases are not supported; write out the value of &{str(event.anchor)[:80]}"
        else:
            node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode):
            if not is_text(node.value):
                problem = f"{ascii(node.value)[:80]} is not text"
            elif node.tag in NUMBER_TAGS and len(node.value) > MAX_DIGITS:
                problem = f"a number has {len(node.value):,} characters"
        elif isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if repeated := [key for key, count in keys.items() if count > 1]:
                problem = f"the key {repeated[0]!r} is given more than once"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return node


def read_yaml(path: Path, label: str, error_class: type[UserError]) -> Any:
    """The content of a YAML file; `error_class` if it cannot be read, or `parse_yaml` refuses it."""
    text = read_text(path, label, error_class, "give a YAML file", MAX_CONFIG_BYTES)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise error_class(f"{label} {path} cannot be read: {error}; give a YAML file") from error


def parse_yaml(text: str, *, construct: bool = True) -> Any:
    """The content of YAML, or a ValueError of one line if it is not of the subset of `StrictLoader`.

    Without `construct` it is only checked, whatever types its tags name.
    """
    try:
        loader = StrictLoader(text)
        node = loader.get_single_node()
        return loader.construct_document(node) if construct and node is not None else None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
