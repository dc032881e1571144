"""Representation misdirection (Li et al. 2024, arXiv 2403.03218, section 4): draw hidden states on forget passages towards a random direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.unlearning.objectives.batch import Batch, Outputs

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def rmu(
    batch: Batch, outputs: Outputs, references: ReferenceCache | None, control: Float[Tensor, " d_model"]
) -> dict[str, Tensor]:
    """‖h_ℓ − c·u‖², mean over real tokens and features; `control` is c·u."""
    assert outputs.hidden is not None
    off = outputs.hidden.float() - control.to(outputs.hidden.device)
    return {"rmu": off[batch.attention_mask].square().mean()}


def control_vector(d_model: int, steering: float, seed: int) -> Float[Tensor, " d_model"]:
    """c·u: a direction drawn uniformly from [0, 1) per feature, scaled to length `steering`."""
    drawn = torch.rand(d_model, generator=torch.Generator().manual_seed(seed))
    return steering * drawn / drawn.norm()
