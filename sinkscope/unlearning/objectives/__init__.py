"""Objectives: losses as functions `objective(batch, outputs, references, …) -> terms`, one file each, registered by name with what they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from sinkscope.unlearning.objectives.activations import activations
from sinkscope.unlearning.objectives.batch import Unit
from sinkscope.unlearning.objectives.grad_ascent import grad_ascent
from sinkscope.unlearning.objectives.kl import kl
from sinkscope.unlearning.objectives.nll import nll
from sinkscope.unlearning.objectives.npo import npo
from sinkscope.unlearning.objectives.rmu import rmu
from sinkscope.unlearning.objectives.simnpo import simnpo

LOGITS, HIDDEN, LOG_PROBS = "logits", "hidden", "log_probs"


@dataclass(frozen=True)
class Objective:
    """A loss, a mean over `unit`; what it reads of the model in training (`logits`, `hidden`: states behind one layer) and of the frozen one (these,
    `log_probs`); and which keys of a recipe's objective, or `control`, it takes."""

    terms: Callable[..., dict[str, Tensor]]
    unit: Unit
    outputs: frozenset[str]
    references: frozenset[str] = field(default_factory=frozenset)
    parameters: tuple[str, ...] = ()


FORGET = {
    "npo": Objective(npo, "passages", frozenset({LOGITS}), frozenset({LOG_PROBS}), ("beta",)),
    "simnpo": Objective(simnpo, "passages", frozenset({LOGITS}), parameters=("beta", "delta")),
    "grad_ascent": Objective(grad_ascent, "predicted", frozenset({LOGITS})),
    "rmu": Objective(rmu, "tokens", frozenset({HIDDEN}), parameters=("control",)),
}
RETAIN = {
    "kl": Objective(kl, "predicted", frozenset({LOGITS}), frozenset({LOGITS})),
    "nll": Objective(nll, "predicted", frozenset({LOGITS})),
    "activations": Objective(activations, "tokens", frozenset({HIDDEN}), frozenset({HIDDEN})),
}


def forgetting(name: str) -> list[Objective]:
    """The loss that drives forgetting, by its name in a recipe; none for `none`."""
    return [] if name == "none" else [FORGET[name]]
