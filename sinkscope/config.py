"""What pydantic found wrong, as one line in plain words that names the key and the mend."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

GROUP, WHOLE, NUMBER, TEXT = (
    "a group of keys",
    "a whole number",
    "a number",
    "text (in quotes, if it looks like something else)",
)
WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": GROUP,
    "finite_number": "a finite number",
    "float_parsing": NUMBER,
    "float_type": NUMBER,
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "int_from_float": WHOLE,
    "int_parsing": WHOLE,
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": WHOLE,
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": GROUP,
    "string_type": TEXT,
}
"""By pydantic's name of an error, what a value must be."""


class Config(BaseModel):
    """A group of keys in a file that people write: unknown keys and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def explain_validation_error(error: ValidationError, root: type[BaseModel], what: str, values: Any) -> str:
    """An error in `values`, an unknown key before others, which are a `what` (a recipe, a study), with the nearest known key where one is unknown."""
    errors = error.errors()
    first = next(
        (each for each in errors if each["type"] == "extra_forbidden"), errors[0]
    )  # what is missing may stand there under a wrong name
    where = _path(first["loc"], values)
    dotted = ".".join(part[:80] for part in where)
    if first["type"] == "extra_forbidden":
        known = list(_model_at(root, where[:-1]).model_fields)
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
        mend = (
            f"did you mean {'.'.join([*dotted.split('.')[:-1], near[0]])!r}?"
            if near
            else f"known keys: {', '.join(known)}"
        )
        return f"{what} key {dotted!r} is unknown; {mend}"
    alike = [each for each in errors if _path(each["loc"], values) == where]  # what else may stand there
    if all(each["type"] in WORDS for each in alike):
        message = "must be " + " or ".join(
            dict.fromkeys(WORDS[each["type"]].format(**each.get("ctx", {})) for each in alike)
        )
    else:
        message = _words(first)
    if not where:
        return f"{what}: {message}"
    if first["type"] == "missing":
        return f"{what} {dotted}: {message}"
    given = first["input"] if isinstance(first["input"], str) else reprlib.repr(first["input"])
    return f"{what} {dotted}: {message} (got {given[:80]!r})"


def _words(found: Any) -> str:
    """One error that is not of the wrong kind of value."""
    match found["type"]:
        case "missing":
            return "is missing; give it a value"
        case "too_short":
            return f"must have at least {found['ctx']['min_length']} entry"
        case "invalid_key" | "recursion_loop":
            return {"invalid_key": "keys must be text; put them in quotes", "recursion_loop": "holds itself"}[
                found["type"]
            ]
        case _:
            return str(found["msg"]).removeprefix("Value error, ")


def _path(loc: Sequence[int | str], values: Any) -> list[str]:
    """The keys and list numbers on the way to an error. Pydantic puts names of types between them, which are in no file."""
    found = []
    for part in loc:
        if _holds(values, part):
            found.append(str(part))
            values = values[part]
        elif isinstance(values, dict) and "[" not in str(part):  # a key that is missing
            found.append(str(part))
    return found


def _holds(values: Any, part: int | str) -> bool:
    if isinstance(values, list):
        return isinstance(part, int) and part < len(values)
    return isinstance(values, dict) and part in values


def _model_at(root: type[BaseModel], where: list[str]) -> type[BaseModel]:
    """The group of keys at a path; names of entries in a mapping are passed over."""
    model: Any = root
    for part in where:
        if part in model.model_fields:
            found = _models_in(model.model_fields[part].annotation)
            model = found[0] if found else model
    return model


def _models_in(annotation: Any) -> list[Any]:
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
