"""Perturbations of a trained model's weights: rounding and magnitude pruning."""

from __future__ import annotations

import re

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkscope.errors import ModelError

FORMS = "int8, bf16 or prune:0.3"


def perturb(model: PreTrainedModel, perturbation: str) -> None:
    """Change the weights in place.

    `bf16`: every weight to the nearest bfloat16. `int8`: the matrix of every linear layer to 8 bits with one
    scale per output row (absmax / 127), as in weight-only quantization; output head and embeddings stay.
    `prune:S`: in each linear layer the share S of weights of smallest magnitude becomes 0 (Han et al. 2015,
    arXiv 1506.02626).

    Raises:
        ModelError: the perturbation is none of these.
    """
    kind, share = parse_perturbation(perturbation)
    with torch.no_grad():
        if kind == "bf16":
            for weight in model.parameters():
                weight.copy_(weight.to(torch.bfloat16))
            return
        head = model.get_output_embeddings()
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
                # GPT-2's Conv1D stores its matrix transposed
                matrix = module.weight.T if isinstance(module, Conv1D) else module.weight
                matrix.copy_(quantize_rows(matrix) if kind == "int8" else prune(matrix, share))


def parse_perturbation(perturbation: str) -> tuple[str, float]:
    """Its kind, and the share of weights that is pruned.

    Raises:
        ModelError: the text has none of the three forms.
    """
    match = re.fullmatch(r"(int8|bf16)|(prune):(0?\.\d+)", perturbation.strip())
    if match is None or (match[2] and not 0 < float(match[3]) < 1):
        raise ModelError(f"perturbation {perturbation!r} is unknown; use {FORMS}")
    return match[1] or match[2], float(match[3] or 0)


def quantize_rows(weight: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Round to 255 levels between −absmax and absmax of each row, with float32 scales."""
    exact = weight.float()
    scale = (exact.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return ((exact / scale).round().clamp(-127, 127) * scale).to(weight.dtype)


def prune(weight: Float[Tensor, "row column"], share: float) -> Float[Tensor, "row column"]:
    """Set the round(share · count) entries of smallest magnitude to 0."""
    count = round(share * weight.numel())
    mask = torch.ones_like(weight).flatten()
    mask[weight.abs().flatten().argsort(stable=True)[:count]] = 0
    return weight * mask.view_as(weight)
