"""Negative preference optimization (Zhang et al. 2024, arXiv 2404.05868, equation 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from sinkscope.unlearning.objectives.batch import Batch, Outputs, sequence_log_probs

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def npo(batch: Batch, outputs: Outputs, references: ReferenceCache, beta: float = 0.1) -> dict[str, Tensor]:
    """−(2/β) · mean log σ(−β · log π_θ(x)/π_ref(x)), with log-probabilities summed over each passage."""
    assert outputs.logits is not None
    ratio = sequence_log_probs(outputs.logits, batch) - references.log_probs[batch.index.cpu()].to(
        outputs.logits
    )
    return {"npo": -2 / beta * F.logsigmoid(-beta * ratio).mean()}
