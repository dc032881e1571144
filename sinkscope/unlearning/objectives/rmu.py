"""Representation misdirection (Li et al. 2024, arXiv 2403.03218, section 4): steer hidden states on forget
passages, and keep them on others."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sinkscope.config import Config
from sinkscope.unlearning.batch import Batch, Outputs, References
from sinkscope.unlearning.objectives import HIDDEN, register_objective


class RMUConfig(Config):
    """Parameters of `rmu`."""

    deprecated_keys: ClassVar = {"steering": "steering_coeff"}

    steering_coeff: float = Field(6.5, gt=0)
    """The length c of the control vector c·u, to which hidden states of forget passages are moved."""


def control_vector(d_model: int, steering_coeff: float, seed: int) -> Float[Tensor, " d_model"]:
    """c·u: a direction drawn uniformly from [0, 1) per feature, scaled to length `steering_coeff`."""
    direction = torch.rand(d_model, generator=torch.Generator().manual_seed(seed))
    return steering_coeff * direction / direction.norm()


def _prepare(config: RMUConfig, d_model: int, seed: int) -> dict[str, Any]:
    return {"control": control_vector(d_model, config.steering_coeff, seed)}


@register_objective(
    "rmu", "forget", "tokens", outputs=[HIDDEN], config=RMUConfig, prepare=_prepare, updates="mlp_output"
)
def rmu(
    batch: Batch, outputs: Outputs, references: References | None, control: Float[Tensor, " d_model"]
) -> Tensor:
    """‖h_ℓ − c·u‖², mean over real tokens and features; `control` is c·u."""
    assert outputs.hidden is not None
    return _mean_square(outputs.hidden.float() - control.to(outputs.hidden.device), batch)


@register_objective("activations", "retain", "tokens", outputs=[HIDDEN], references=[HIDDEN])
def activations(batch: Batch, outputs: Outputs, references: References) -> Tensor:
    """‖h_ℓ − h_ℓ of the reference model‖², mean over real tokens and features."""
    assert outputs.hidden is not None
    reference = references.hidden(batch).to(outputs.hidden.device)
    return _mean_square(outputs.hidden.float() - reference.float(), batch)


def _mean_square(difference: Float[Tensor, "batch position d_model"], batch: Batch) -> Tensor:
    return difference[batch.attention_mask].square().mean()
