"""A plugin: gradient ascent that stops where a passage has become unlikely enough."""

from __future__ import annotations

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sinkscope.config import Config
from sinkscope.unlearning.batch import Batch, Outputs, token_log_probs
from sinkscope.unlearning.objectives import LOGITS, register_objective


class BoundedAscentConfig(Config):
    """Parameters of `bounded_ascent`."""

    max_loss: float = Field(4.0, gt=0)
    """Nats per token beyond which a token is no longer pushed."""


@register_objective("bounded_ascent", "forget", "predicted", outputs=[LOGITS], config=BoundedAscentConfig)
def bounded_ascent(
    batch: Batch, outputs: Outputs, references: object, config: BoundedAscentConfig
) -> Float[Tensor, ""]:
    """Mean of max(log p(token), −max_loss) over predicted tokens."""
    log_probs = token_log_probs(outputs.logits, batch)
    return log_probs[batch.predicted].clamp(min=-config.max_loss).mean()
