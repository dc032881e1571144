"""Objectives: the losses of unlearning, one file per method, registered under the names that recipes use.

A new objective is one file, here or in a plugin:

    class ScaledConfig(Config):
        scale: float = 1.0

    @register_objective("scaled_ascent", "forget", "predicted", outputs=[LOGITS], config=ScaledConfig)
    def scaled_ascent(batch, outputs, references, config):
        return -config.scale * nll(batch, outputs, references)

A recipe then names it: `objective: {forget: scaled_ascent, scale: 2.0}`.
"""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from torch import Tensor

from sinkscope.config import Config
from sinkscope.errors import RecipeError, suggest
from sinkscope.plugins import Registry
from sinkscope.unlearning.batch import Unit

LOGITS: Final = "logits"
HIDDEN: Final = "hidden"
LOG_PROBS: Final = "log_probs"
NONE: Final = "none"
"""The name of no forget objective in a recipe."""

Role = Literal["forget", "retain"]
Loss = TypeVar("Loss", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Objective:
    """A registered loss.

    Attributes:
        role: the split that it is meant for; retain objectives are also applied to poisoned passages.
        loss: `loss(batch, outputs, references, **arguments)`, a mean over `unit`.
        outputs: what it reads of the model in training: `logits`, `hidden` (states after one layer).
        references: what it reads of the reference model: `logits`, `hidden`, `log_probs` (of passages).
        config: its parameters: keys of a recipe's `objective` block, for forget objectives.
        prepare: `prepare(config, d_model, seed)`, the arguments of `loss`, computed once a run; by default
            the config.
        updates: which weights it trains by default: all, or the feed-forward outputs up to the layer that it
            reads.
    """

    name: str
    role: Role
    loss: Callable[..., Tensor]
    unit: Unit
    outputs: frozenset[str]
    references: frozenset[str] = frozenset()
    config: type[Config] | None = None
    prepare: Callable[[Any, int, int], dict[str, Any]] | None = None
    updates: Literal["all", "mlp_output"] = "all"

    def arguments(self, config: Any, d_model: int, seed: int) -> dict[str, Any]:
        """The keyword arguments of `loss` in one run."""
        if self.prepare is not None:
            return self.prepare(config, d_model, seed)
        return {} if self.config is None else {"config": config}


OBJECTIVES = Registry[Objective]("objective", RecipeError, "sinkscope.objectives")


def register_objective(
    name: str,
    role: Role,
    unit: Unit,
    *,
    outputs: Iterable[str],
    references: Iterable[str] = (),
    **options: Any,
) -> Callable[[Loss], Loss]:
    """Register the decorated loss under a name for recipes; the arguments are attributes of `Objective`."""

    def register(loss: Loss) -> Loss:
        read = (frozenset(outputs), frozenset(references))
        OBJECTIVES.add(name, Objective(name, role, loss, unit, *read, **options))
        return loss

    return register


def get_objective(name: str, role: Role) -> Objective:
    """The objective of this name.

    Raises:
        RecipeError: the name is unknown, or is that of an objective of the other role.
    """
    known = [each for each, objective in OBJECTIVES.items() if objective.role == role]
    if name not in OBJECTIVES:
        hint = suggest(name, known, "use one of")
        raise RecipeError(
            f"{role} objective {name!r} is unknown; {hint} (of your own: give its file as `plugin`)"
        )
    objective = OBJECTIVES[name]
    if objective.role != role:
        raise RecipeError(f"{name!r} is a {objective.role} objective; use one of {', '.join(known)}")
    return objective


# the built-in objectives, which register themselves
from sinkscope.unlearning.objectives.kl import kl as kl
from sinkscope.unlearning.objectives.nll import grad_ascent as grad_ascent
from sinkscope.unlearning.objectives.nll import nll as nll
from sinkscope.unlearning.objectives.npo import npo as npo
from sinkscope.unlearning.objectives.rmu import RMUConfig as RMUConfig
from sinkscope.unlearning.objectives.rmu import activations as activations
from sinkscope.unlearning.objectives.rmu import rmu as rmu
from sinkscope.unlearning.objectives.simnpo import simnpo as simnpo
