"""Retain by staying close to the reference model, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sinkscope.unlearning.objectives.batch import Batch, Outputs

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def kl(batch: Batch, outputs: Outputs, references: ReferenceCache) -> dict[str, Tensor]:
    """KL(π_ref ‖ π_θ) of the next token, in nats, mean over the positions that predict a real token."""
    assert outputs.logits is not None
    ours = outputs.logits[:, :-1].log_softmax(-1)
    theirs = references.logits(batch)[:, :-1].to(ours).log_softmax(-1)
    per_token = (theirs.exp() * (theirs - ours)).sum(-1)
    return {"kl": per_token[batch.predicted].mean()}
