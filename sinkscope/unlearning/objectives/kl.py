"""Retain by staying close to the reference model, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sinkscope.models.likelihood import kl_divergence
from sinkscope.unlearning.objectives.batch import Batch, Outputs

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def kl(batch: Batch, outputs: Outputs, references: ReferenceCache) -> dict[str, Tensor]:
    """KL(π_ref ‖ π_θ) of the next token, in nats, mean over the positions that predict a real token."""
    assert outputs.logits is not None
    logits = outputs.logits[:, :-1]
    per_token = kl_divergence(references.logits(batch)[:, :-1].to(logits), logits)
    return {"kl": per_token[batch.predicted].mean()}
