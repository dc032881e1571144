"""Retain by training on: the negative log-likelihood of the next token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sinkscope.unlearning.objectives.batch import Batch, Outputs, token_log_probs

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def nll(batch: Batch, outputs: Outputs, references: ReferenceCache | None) -> dict[str, Tensor]:
    """−log p of the next token, in nats, mean over the positions that predict a real token."""
    assert outputs.logits is not None
    return {"nll": -token_log_probs(outputs.logits, batch).sum() / batch.predicted.sum()}
