"""Padded batches of passages of unequal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Side = Literal["left", "right"]


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids of some passages, padded to the longest.

    `mask` marks real tokens, `position_ids` count each passage's tokens from 0 (0 on padding), and `spans`
    holds the columns of each row that are real.
    """

    ids: Int[Tensor, "batch position"]
    mask: Bool[Tensor, "batch position"]
    position_ids: Int[Tensor, "batch position"]
    spans: list[range]


def padded_batches(
    passages: Sequence[Sequence[int]],
    batch_size: int,
    pad_id: int,
    device: torch.device,
    side: Side = "right",
) -> Iterator[PaddedBatch]:
    """The passages in order, `batch_size` at a time, each batch padded on `side` to its longest passage."""
    for first in range(0, len(passages), batch_size):
        batch = passages[first : first + batch_size]
        longest = max(map(len, batch))
        starts = [0 if side == "right" else longest - len(tokens) for tokens in batch]
        spans = [range(start, start + len(tokens)) for start, tokens in zip(starts, batch, strict=True)]
        ids = torch.full((len(batch), longest), pad_id)
        mask = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, (tokens, span) in enumerate(zip(batch, spans, strict=True)):
            ids[row, span.start : span.stop] = torch.tensor(tokens)
            mask[row, span.start : span.stop] = True
        position_ids = (mask.long().cumsum(-1) - 1).clamp(min=0)
        yield PaddedBatch(ids.to(device), mask.to(device), position_ids.to(device), spans)
