"""The tables of keys on the pages on recipes, studies and benchmarks, from the models that read the files."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sinkscope.benchmarks.directory import Settings
from sinkscope.config import Config
from sinkscope.studies.grids import ContinuedGrid, GridConfig, ModelGrid, PerturbationGrid, RecipeGrid
from sinkscope.studies.spec import Spec
from sinkscope.unlearning.objective_config import ObjectiveConfig
from sinkscope.unlearning.objectives import NONE, OBJECTIVES
from sinkscope.unlearning.recipe import Recipe

NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any value"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
GRIDS = {
    RecipeGrid: "neither `models`, `init_from` nor `perturbations`",
    ModelGrid: "`models`",
    ContinuedGrid: "`init_from`",
    PerturbationGrid: "`init_from` and `perturbations`",
}
"""Kind of grid -> the keys that make a grid one of this kind."""


def recipe_reference() -> str:
    """Every key of a recipe, group by group."""
    parts = [_section(name, model) for name, model in _groups(Recipe)]
    at = next(i for i, part in enumerate(parts) if part.startswith("## `objective`")) + 1
    for name, objective in OBJECTIVES.items():
        if objective.config is not None:
            parts.insert(at, f"With `forget: {name}` also:\n\n{_table(objective.config)}")
            at += 1
    return "\n\n".join(parts) + "\n"


def study_reference() -> str:
    """Every key of a study's specification, group by group, and every kind of grid."""
    parts = [_section(name, model) for name, model in _groups(Spec)]
    parts += ["## `grids.NAME`", "The keys of a grid decide its kind. These are for every kind:"]
    parts.append(_table(GridConfig))
    for kind, keys in GRIDS.items():
        parts += [f"### A grid with {keys}", str(inspect.getdoc(kind)), _table(kind, without=GridConfig)]
    return "\n\n".join(parts) + "\n"


def benchmark_reference() -> str:
    """Every key of `benchmark.json`."""
    parts = [_section(name, model, 3) for name, model in _groups(Settings)]
    return "\n\n".join(parts).removeprefix("### Top level\n\n") + "\n"


REFERENCES = {"recipe": recipe_reference, "study": study_reference, "benchmark": benchmark_reference}
"""Mark on a page, as in `<!-- recipe -->` -> the function that makes what is there."""


def _groups(model: type[Config], title: str = "") -> Iterator[tuple[str, type[Config]]]:
    """A model and the groups of keys in it, each with its dotted name, except grids."""
    if issubclass(model, ObjectiveConfig):
        model = ObjectiveConfig  # parameters of the default objective have a table of their own
    yield title, model
    for name, field in model.model_fields.items():
        dotted = f"{title}.{name}".lstrip(".") + (".NAME" if get_origin(field.annotation) is dict else "")
        for nested in dict.fromkeys(_models(field.annotation)):
            if not issubclass(nested, GridConfig):
                yield from _groups(nested, dotted)


def _models(annotation: Any) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _section(title: str, model: type[Config], level: int = 2) -> str:
    heading = "#" * level
    if not title:
        return f"{heading} Top level\n\n{_table(model)}"
    return f"{heading} `{title}`\n\n{inspect.getdoc(model)}\n\n{_table(model)}"


def _table(model: type[Config], without: type[Config] | None = None) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    known = {} if without is None else without.model_fields
    for name, field in model.model_fields.items():
        if name not in known:
            cells = [f"`{name}`", _type_of(model, name, field), _default(field), field.description or ""]
            rows.append(
                "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
            )
    text = "\n".join(rows)
    old = {} if without is not None else model.deprecated_keys
    names = [f"`{before}`, now `{after}`" for before, after in old.items()]
    names += [
        f"`{key}: {before}`, now `{key}: {after}`"
        for key, values in model.deprecated_values.items()
        for before, after in values.items()
    ]
    return f"{text}\n\nDeprecated, with a warning: {'; '.join(names)}." if names else text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, float) and 0 < value < 1e-3:
        return f"{value:.15f}".rstrip("0")
    return f'"{value}"' if ": " in str(value) else str(value)


def _type_of(model: type[Config], name: str, field: FieldInfo) -> str:
    if issubclass(model, ObjectiveConfig) and name in ("forget", "retain"):
        names = [known for known, objective in OBJECTIVES.items() if objective.role == name]
        names += [NONE] if name == "forget" else []
        listed = ", ".join(f"`{each}`" for each in names)
        return f"{listed}, or of a plugin" if name == "forget" else f"mapping of {listed} to numbers > 0"
    return _type(field.annotation, tuple(field.metadata))


def _type(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A type in words, with the bounds in `metadata`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        more = [each for item in arguments[1:] for each in getattr(item, "metadata", [item])]
        return _type(arguments[0], (*metadata, *more))
    if origin in (Union, types.UnionType):
        kinds = [_type(each, metadata) for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys(kinds)) + (" or null" if type(None) in arguments else "")
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    is_nonempty = any(getattr(each, "min_length", 0) for each in metadata)
    if origin is list:
        return f"{'non-empty ' if is_nonempty else ''}list of {_plural(_type(arguments[0]))}"
    if origin is dict:
        group = "groups" if list(_models(arguments[1])) else _plural(_type(arguments[1]))
        return f"{'non-empty ' if is_nonempty else ''}mapping of names to {group}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "group"
    bounds = [
        f"{sign} {'2³²' if bound == 2**32 else f'{bound:,}'}"
        for each in metadata
        for key, sign in BOUNDS.items()
        if (bound := getattr(each, key, None)) is not None
    ]
    return " ".join([NAMES[annotation], " and ".join(bounds)]).strip()


def _plural(words: str) -> str:
    head, space, tail = words.partition(" ")
    known = {"text": "texts", "integer": "integers", "number": "numbers"}
    if words.startswith("any value"):
        return "any values"
    return known.get(head, head) + space + tail
