"""Negative preference optimization (Zhang et al. 2024, arXiv 2404.05868, equation 3)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sinkscope.config import Config
from sinkscope.unlearning.batch import Batch, Outputs, References, sequence_log_probs
from sinkscope.unlearning.objectives import LOG_PROBS, LOGITS, register_objective


class NPOConfig(Config):
    """Parameters of `npo`."""

    beta: float = Field(0.1, gt=0)
    """Inverse temperature β: the larger, the sooner a passage that has become unlikely is left alone."""


@register_objective("npo", "forget", "passages", outputs=[LOGITS], references=[LOG_PROBS], config=NPOConfig)
def npo(batch: Batch, outputs: Outputs, references: References, config: NPOConfig) -> Tensor:
    """−(2/β) · mean log σ(−β · log π_θ(x)/π_ref(x)), with log-probabilities summed over each passage."""
    assert outputs.logits is not None
    reference = references.log_probs[batch.index.cpu()].to(outputs.logits)
    ratio = sequence_log_probs(outputs.logits, batch) - reference
    return -2 / config.beta * F.logsigmoid(-config.beta * ratio).mean()
