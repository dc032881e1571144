"""The part of a recipe that names the objectives and their parameters."""

from __future__ import annotations

from functools import cache, partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field, create_model

from sinkscope.config import Config, warn_once
from sinkscope.errors import RecipeError
from sinkscope.unlearning.objectives import NONE, Objective, Role, get_objective

OLD_OBJECTIVES = ("npo", "simnpo", "grad_ascent", "rmu", NONE)
OLD_PARAMETERS = {"beta": None, "delta": 0.0, "steering": 6.5}
"""Defaults of parameters that recipes of old run directories have for all of `OLD_OBJECTIVES`."""


def _check_objective(name: str, role: Role) -> str:
    if name != NONE or role == "retain":
        get_objective(name, role)
    return name


class ObjectiveConfig(Config):
    """The forget objective, and weighted retain objectives.

    Parameters of the forget objective are keys of the same block: `{forget: npo, beta: 0.1, retain: {kl:
    1.0}}`. `grad_ascent` with `retain: {nll: 1}` is gradient difference. `forget: none` with poisoning is a
    plain backdoor, and without it fine-tuning on retain passages, of which an epoch has as many as the forget
    set.
    """

    forget: Annotated[str, AfterValidator(partial(_check_objective, role="forget"))] = "npo"
    """Name of the objective on forget passages; `none` trains on the other passages alone."""
    layer: int | None = Field(None, ge=0)
    """Layer after which `rmu` and `activations` read hidden states; by default 7 of 32, scaled to the
    model's depth."""
    retain: dict[
        Annotated[str, AfterValidator(partial(_check_objective, role="retain"))],
        Annotated[float, Field(gt=0)],
    ] = Field({"kl": 1.0}, min_length=1)
    """Names of objectives on retain passages, and on poisoned ones, each with its weight in the loss."""

    def forget_terms(self) -> list[Objective]:
        """The forget objective; empty for `none`."""
        return [] if self.forget == NONE else [get_objective(self.forget, "forget")]

    def retain_terms(self) -> list[Objective]:
        """The retain objectives."""
        return [get_objective(name, "retain") for name in self.retain]


@cache
def objective_config(name: str) -> type[ObjectiveConfig]:
    """`ObjectiveConfig` with the parameters of a forget objective."""
    parameters = get_objective(name, "forget").config
    bases = (ObjectiveConfig,) if parameters is None else (parameters, ObjectiveConfig)
    return create_model(f"{name}Objective", __base__=bases)  # type: ignore[arg-type]


def objective_config_of(values: Any) -> type[ObjectiveConfig]:
    """The config of an `objective` block; without parameters where it names no objective."""
    try:
        return objective_config(values.get("forget", "npo") if isinstance(values, dict) else "npo")
    except (RecipeError, TypeError):
        return ObjectiveConfig


def drop_old_defaults(values: dict[str, Any], config: type[ObjectiveConfig]) -> dict[str, Any]:
    """An `objective` block without parameters of other objectives at their old defaults."""
    values = dict(values)
    if values.get("forget", "npo") not in OLD_OBJECTIVES:
        return values
    known = config.model_fields.keys() | config.deprecated_keys.keys()
    for key, default in OLD_PARAMETERS.items():
        if key not in values or (key in known and (default is not None or values[key] is not None)):
            continue
        value = values[key]
        if value is None or (value == default and not isinstance(value, bool)):
            warn_once(f"the key 'objective.{key}' has no effect at {value!r} and is ignored; leave it out")
            del values[key]
    return values


def drop_parameters(values: dict[str, Any]) -> dict[str, Any]:
    """An `objective` block without the parameters of its forget objective: what suits another one too."""
    config = objective_config_of(values)
    parameters = config.model_fields.keys() - ObjectiveConfig.model_fields.keys()
    values = drop_old_defaults(values, config)
    return {key: value for key, value in values.items() if key not in parameters}
