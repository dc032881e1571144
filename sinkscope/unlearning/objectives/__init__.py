"""Objectives: the losses of unlearning, one file each, registered under the names that recipes use.

A new objective is one file, here or in a plugin:

    class ScaledConfig(Config):
        scale: float = 1.0

    @register_objective("scaled_ascent", "forget", "predicted", outputs=[LOGITS], config=ScaledConfig)
    def scaled_ascent(batch, outputs, references, config):
        return -config.scale * nll(batch, outputs, references)

A recipe then names it: `objective: {forget: scaled_ascent, scale: 2.0}`.
"""

from sinkscope.unlearning.objectives.activations import activations
from sinkscope.unlearning.objectives.base import (
    HIDDEN,
    LOG_PROBS,
    LOGITS,
    NONE,
    OBJECTIVES,
    Objective,
    get_objective,
    register_objective,
)
from sinkscope.unlearning.objectives.grad_ascent import grad_ascent
from sinkscope.unlearning.objectives.kl import kl
from sinkscope.unlearning.objectives.nll import nll
from sinkscope.unlearning.objectives.npo import NPOConfig, npo
from sinkscope.unlearning.objectives.rmu import RMUConfig, control_vector, rmu
from sinkscope.unlearning.objectives.simnpo import SimNPOConfig, simnpo

__all__ = [
    "HIDDEN",
    "LOGITS",
    "LOG_PROBS",
    "NONE",
    "OBJECTIVES",
    "NPOConfig",
    "Objective",
    "RMUConfig",
    "SimNPOConfig",
    "activations",
    "control_vector",
    "get_objective",
    "grad_ascent",
    "kl",
    "nll",
    "npo",
    "register_objective",
    "rmu",
    "simnpo",
]
