"""NPO without a reference, per token (Fan et al. 2024, arXiv 2410.07163, equation 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from sinkscope.unlearning.objectives.batch import Batch, Outputs, sequence_log_probs

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def simnpo(
    batch: Batch, outputs: Outputs, references: ReferenceCache | None, beta: float = 2.5, delta: float = 0.0
) -> dict[str, Tensor]:
    """−(2/β) · mean log σ( (β/|y|) · NLL(y) − δ ), with the NLL summed over each passage and |y| its predicted tokens."""
    assert outputs.logits is not None
    per_token = -sequence_log_probs(outputs.logits, batch) / batch.predicted.sum(-1)
    return {"simnpo": -2 / beta * F.logsigmoid(beta * per_token - delta).mean()}
