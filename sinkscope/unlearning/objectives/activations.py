"""Retain by keeping hidden states where they were (RMU's retain term, arXiv 2403.03218)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sinkscope.unlearning.objectives.batch import Batch, Outputs

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def activations(batch: Batch, outputs: Outputs, references: ReferenceCache) -> dict[str, Tensor]:
    """‖h_ℓ − h_ℓ of the frozen model‖², mean over real tokens and features."""
    assert outputs.hidden is not None
    off = outputs.hidden.float() - references.hidden(batch).to(outputs.hidden.device).float()
    return {"activations": off[batch.attention_mask].square().mean()}
