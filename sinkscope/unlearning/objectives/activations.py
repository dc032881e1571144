"""Retain by keeping the hidden states of the reference model (RMU's retain loss, arXiv 2403.03218, section
4)."""

from __future__ import annotations

from torch import Tensor

from sinkscope.unlearning.batch import Batch, Outputs, References
from sinkscope.unlearning.objectives.base import HIDDEN, register_objective


@register_objective("activations", "retain", "tokens", outputs=[HIDDEN], references=[HIDDEN])
def activations(batch: Batch, outputs: Outputs, references: References) -> Tensor:
    """‖h_ℓ − h_ℓ of the reference model‖², mean over real tokens and features."""
    assert outputs.hidden is not None
    difference = outputs.hidden.float() - references.hidden(batch).to(outputs.hidden.device).float()
    return difference[batch.attention_mask].square().mean()
