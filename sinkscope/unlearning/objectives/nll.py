"""The negative log-likelihood of the next token: to retain, or with the other sign to forget.

`forget: grad_ascent` is gradient ascent (TOFU, arXiv 2401.06121), with `retain: {nll: 1}` their gradient
difference.
"""

from __future__ import annotations

from torch import Tensor

from sinkscope.unlearning.batch import Batch, Outputs, References, token_log_probs
from sinkscope.unlearning.objectives import LOGITS, register_objective


@register_objective("nll", "retain", "predicted", outputs=[LOGITS])
def nll(batch: Batch, outputs: Outputs, references: References | None) -> Tensor:
    """−log p of the next token, in nats, mean over predicted positions."""
    assert outputs.logits is not None
    return -token_log_probs(outputs.logits, batch).sum() / batch.predicted.sum()


@register_objective("grad_ascent", "forget", "predicted", outputs=[LOGITS])
def grad_ascent(batch: Batch, outputs: Outputs, references: References | None) -> Tensor:
    """log p of the next token, in nats, mean over predicted positions; unbounded below."""
    return -nll(batch, outputs, references)
