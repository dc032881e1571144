"""Passages of several lengths as one batch, and the comparison of outputs on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Side = Literal["left", "right"]


@dataclass(frozen=True)
class PaddedBatch:
    """Passages padded to the longest: which tokens are real, their positions, and the columns of each row."""

    ids: Int[Tensor, "batch position"]
    mask: Bool[Tensor, "batch position"]
    position_ids: Int[Tensor, "batch position"]
    spans: list[range]

    @classmethod
    def pad(
        cls,
        passages: Sequence[Sequence[int]],
        pad_id: int,
        side: Side = "right",
        device: torch.device | str = "cpu",
    ) -> PaddedBatch:
        """Pad passages (token ids) on `side`."""
        rows = [torch.tensor(tokens, dtype=torch.long) for tokens in passages]
        ids = pad_sequence(rows, True, pad_id, side)
        mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], True, False, side)
        position_ids = (mask.long().cumsum(-1) - 1).clamp(min=0)
        starts = [0 if side == "right" else ids.shape[1] - len(row) for row in rows]
        spans = [range(start, start + len(row)) for start, row in zip(starts, rows, strict=True)]
        return cls(ids.to(device), mask.to(device), position_ids.to(device), spans)


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
