"""Retain by staying close to the reference model's next-token distribution."""

from __future__ import annotations

from torch import Tensor

from sinkscope.models.inference import kl_divergence
from sinkscope.unlearning.batch import Batch, Outputs, References
from sinkscope.unlearning.objectives import LOGITS, register_objective


@register_objective("kl", "retain", "predicted", outputs=[LOGITS], references=[LOGITS])
def kl(batch: Batch, outputs: Outputs, references: References) -> Tensor:
    """KL(π_ref ‖ π_θ) of the next token, in nats, mean over predicted positions."""
    assert outputs.logits is not None
    logits = outputs.logits[:, :-1]
    per_token = kl_divergence(references.logits(batch)[:, :-1].to(logits), logits)
    return per_token[batch.predicted].mean()
