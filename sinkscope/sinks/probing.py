"""Small inputs on which a backend is compared with the model before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sinkscope.models.model import Model
from sinkscope.models.padding import PaddedBatch

N_PROBE_TOKENS = 24
"""Tokens of the longer of two passages, of which the shorter is padded."""


def make_probe(model: Model, tokens: Sequence[int]) -> PaddedBatch:
    """A batch as captures have them: the first few of `tokens`, and a shorter passage with padding."""
    rows = [list(tokens[:N_PROBE_TOKENS]), list(tokens[: max(1, min(len(tokens), N_PROBE_TOKENS) // 2)])]
    return next(iter(model.batches(rows, batch_size=2)))


def differs(
    result: Float[Tensor, "batch position *rest"],
    expected: Float[Tensor, "batch position *rest"],
    mask: Bool[Tensor, "batch position"],
    dtype: torch.dtype | None = None,
) -> bool:
    """Whether tensors differ, where `mask` has tokens, by more than the rounding of `dtype` explains."""
    tolerance = 1e-3 if (dtype or expected.dtype) == torch.float32 else 0.1
    result, expected = result[mask].float(), expected[mask].float()
    return not (result - expected).abs().max() <= tolerance * expected.abs().max()
