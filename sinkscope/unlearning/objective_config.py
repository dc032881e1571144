"""The `objective` block of a recipe: the forget objective, its parameters, and weighted retain objectives."""

from __future__ import annotations

from functools import cache, partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from sinkscope.config import Config, warn_once
from sinkscope.errors import RecipeError
from sinkscope.unlearning.objectives import NONE, Objective, get_objective

PositiveFloat = Annotated[float, Field(gt=0)]
OLD_OBJECTIVES = ("npo", "simnpo", "grad_ascent", "rmu", NONE)
OLD_PARAMETERS = {"beta": None, "delta": 0.0, "steering": 6.5}
"""Defaults of the parameters that `objective` once had for all of `OLD_OBJECTIVES`: old run directories have
them."""


def _check_objective(name: str, role: Literal["forget", "retain"]) -> str:
    if name != NONE or role == "retain":
        get_objective(name, role)
    return name


class ObjectiveConfig(Config):
    """The forget objective and the weighted retain objectives, which apply to retain and to poisoned
    passages.

    Parameters of the forget objective are keys of the same block: `{forget: npo, beta: 0.1, retain: {kl:
    1.0}}`. `layer` is where `rmu` and `activations` read hidden states; by default 7 of 32, scaled to the
    model's depth. `grad_ascent` with `retain: {nll: 1}` is gradient difference. `forget: none` with poisoning
    is a plain backdoor, and without it fine-tuning on retain passages, of which an epoch has as many as the
    forget set.
    """

    forget: Annotated[str, AfterValidator(partial(_check_objective, role="forget"))] = "npo"
    layer: int | None = Field(None, ge=0)
    retain: dict[Annotated[str, AfterValidator(partial(_check_objective, role="retain"))], PositiveFloat] = (
        Field({"kl": 1.0}, min_length=1)
    )

    def forget_terms(self) -> list[Objective]:
        """The forget objective; empty for `none`."""
        return [] if self.forget == NONE else [get_objective(self.forget, "forget")]

    def retain_terms(self) -> list[Objective]:
        """The retain objectives."""
        return [get_objective(name, "retain") for name in self.retain]


@cache
def objective_config(name: str) -> type[ObjectiveConfig]:
    """`ObjectiveConfig` with the parameters of a forget objective."""
    parameters = None if name == NONE else get_objective(name, "forget").config
    if parameters is None:
        return ObjectiveConfig
    return create_model(f"{name}Objective", __base__=(parameters, ObjectiveConfig))  # type: ignore[arg-type]


def objective_config_of(values: Any) -> type[ObjectiveConfig]:
    """The config of an `objective` block; without parameters where the name of its objective is wrong."""
    name = values.get("forget", "npo") if isinstance(values, dict) else "npo"
    try:
        return objective_config(name)
    except (RecipeError, TypeError):
        return ObjectiveConfig


def drop_old_defaults(values: dict[str, Any], config: type[ObjectiveConfig]) -> dict[str, Any]:
    """An `objective` block without parameters of other objectives at their old defaults."""
    values = dict(values)
    if values.get("forget", "npo") not in OLD_OBJECTIVES:
        return values
    parameters = config.model_fields.keys() | config.deprecated_keys.keys()
    for key, default in OLD_PARAMETERS.items():
        if key not in values or (key in parameters and (default is not None or values[key] is not None)):
            continue
        if values[key] is None or (values[key] == default and not isinstance(values[key], bool)):
            warn_once(
                f"the key 'objective.{key}' has no effect at {values[key]!r} and is ignored; leave it out"
            )
            del values[key]
    return values
