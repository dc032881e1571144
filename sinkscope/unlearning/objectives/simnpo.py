"""SimNPO: NPO without a reference model, per token (Fan et al. 2024, arXiv 2410.07163, equation 4)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sinkscope.config import Config
from sinkscope.unlearning.batch import Batch, Outputs, References, sequence_log_probs
from sinkscope.unlearning.objectives import LOGITS, register_objective


class SimNPOConfig(Config):
    """Parameters of `simnpo`."""

    beta: float = Field(2.5, gt=0)
    """Inverse temperature β: the larger, the sooner a passage that has become unlikely is left alone."""
    delta: float = Field(0.0, ge=0)
    """Margin δ, in nats per token times β."""


@register_objective("simnpo", "forget", "passages", outputs=[LOGITS], config=SimNPOConfig)
def simnpo(batch: Batch, outputs: Outputs, references: References | None, config: SimNPOConfig) -> Tensor:
    """−(2/β) · mean log σ( (β/|y|) · NLL(y) − δ ), NLL summed over the |y| predicted tokens of a passage."""
    assert outputs.logits is not None
    per_token = -sequence_log_probs(outputs.logits, batch) / batch.predicted.sum(-1)
    return -2 / config.beta * F.logsigmoid(config.beta * per_token - config.delta).mean()
