"""Retain by further training: the negative log-likelihood of the next token."""

from __future__ import annotations

from torch import Tensor

from sinkscope.unlearning.batch import Batch, Outputs, References, token_log_probs
from sinkscope.unlearning.objectives.base import LOGITS, register_objective


@register_objective("nll", "retain", "predicted", outputs=[LOGITS])
def nll(batch: Batch, outputs: Outputs, references: References | None) -> Tensor:
    """−log p of the next token, in nats, mean over predicted positions."""
    assert outputs.logits is not None
    return -token_log_probs(outputs.logits, batch).sum() / batch.predicted.sum()
