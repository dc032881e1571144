"""Gradient ascent (TOFU, arXiv 2401.06121); with `retain: {nll: 1}` it is their gradient difference."""

from __future__ import annotations

from torch import Tensor

from sinkscope.unlearning.batch import Batch, Outputs, References
from sinkscope.unlearning.objectives.base import LOGITS, register_objective
from sinkscope.unlearning.objectives.nll import nll


@register_objective("grad_ascent", "forget", "predicted", outputs=[LOGITS])
def grad_ascent(batch: Batch, outputs: Outputs, references: References | None) -> Tensor:
    """log p of the next token, in nats, mean over predicted positions; unbounded below."""
    return -nll(batch, outputs, references)
