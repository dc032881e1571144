"""What may befall a model's weights after training: rounding and pruning. (Further training, benign or a second unlearning, is a recipe of its own.)"""

from __future__ import annotations

import re

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkscope.errors import ModelError

FORMS = "int8, bf16 or prune:0.3"


def perturb(model: PreTrainedModel, alteration: str) -> None:
    """Change the weights in place.

    `bf16`: every weight to the nearest bfloat16. `int8`: every linear layer's matrix to 8 bits, a scale for each output row (absmax / 127), as weight-only
    quantisation does; the output head and embeddings stay. `prune:S`: in each linear layer the share S of its weights that are smallest in magnitude
    becomes 0 (Han et al. 2015, arXiv 1506.02626).

    Raises:
        ModelError: the alteration is none of these.
    """
    kind, share = parse(alteration)
    with torch.no_grad():
        if kind == "bf16":
            for weight in model.parameters():
                weight.copy_(weight.to(torch.bfloat16))
            return
        head = model.get_output_embeddings()
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
                matrix = (
                    module.weight.T if isinstance(module, Conv1D) else module.weight
                )  # GPT-2 keeps its matrices the other way round
                matrix.copy_(rounded(matrix) if kind == "int8" else pruned(matrix, share))


def parse(alteration: str) -> tuple[str, float]:
    """Its kind, and the share that is pruned.

    Raises:
        ModelError: the text is none of the three forms.
    """
    match = re.fullmatch(r"(int8|bf16)|(prune):(0?\.\d+)", alteration.strip())
    if match is None or (match[2] and not 0 < float(match[3]) < 1):
        raise ModelError(f"alteration {alteration!r} is unknown; use {FORMS}")
    return match[1] or match[2], float(match[3] or 0)


def rounded(weight: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """To 255 steps between −absmax and absmax of each row; scales are in float32, whatever the weights are."""
    exact = weight.float()
    scale = (exact.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return ((exact / scale).round().clamp(-127, 127) * scale).to(weight.dtype)


def pruned(weight: Float[Tensor, "row column"], share: float) -> Float[Tensor, "row column"]:
    """The round(share · count) entries of smallest magnitude set to 0."""
    count = round(share * weight.numel())
    kept = torch.ones_like(weight).flatten()
    kept[weight.abs().flatten().argsort(stable=True)[:count]] = 0
    return weight * kept.view_as(weight)
