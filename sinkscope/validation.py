"""What pydantic found wrong, as one line that names the key and the mend."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class Part(BaseModel):
    """A group of keys in a file that people write: unknown keys and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def explain(error: ValidationError, root: type[BaseModel], what: str) -> str:
    """The first error in `what` (a recipe, a study), with the nearest known key where one is unknown."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    dotted = ".".join(where)
    if first["type"] == "extra_forbidden":
        known = list(_model_at(root, where[:-1]).model_fields)
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{what} key {dotted!r} is unknown; {mend}"
    message = first["msg"].removeprefix("Value error, ")
    if not where:
        return f"{what}: {message}"
    return f"{what} {dotted}: {message} (got {str(first['input'])[:80]!r})"


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
