"""Gradient ascent: push the likelihood of the forget passages down (TOFU, arXiv 2401.06121). With retain `nll` it is their gradient difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sinkscope.unlearning.objectives.batch import Batch, Outputs
from sinkscope.unlearning.objectives.nll import nll

if TYPE_CHECKING:
    from sinkscope.unlearning.reference_model import ReferenceCache


def grad_ascent(batch: Batch, outputs: Outputs, references: ReferenceCache | None) -> dict[str, Tensor]:
    """log p of the next token, in nats, mean over the positions that predict a real token; unbounded below."""
    return {"grad_ascent": -nll(batch, outputs, references)["nll"]}
