"""Attention maps of chosen heads in bins of positions, so that a map's size does not grow with the passage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.sinks.statistics import Block, require_full_attention

SIDE = 64
"""Maps of many heads have at most this many bins a side,"""
CELLS = 2**22
"""and together at most so many cells: all of 32 × 32 heads."""


def bin_for(heads: int, length: int) -> int:
    """The size of bins that keeps maps of `heads` heads small."""
    return -(-length // max(1, min(SIDE, math.isqrt(CELLS // heads))))


class BinnedPattern:
    """`pattern`: attention into each bin of `bin_size` keys (a sum), mean over each bin of as many queries and over passages.

    `heads` are pairs (layer, head), one map each, in their order. The last bin is smaller where `bin_size` does not divide `length`, the
    length of the longest passage. A bin of size 1 gives the map itself. Rows that no passage has are NaN.
    """

    def __init__(self, heads: Sequence[tuple[int, int]], length: int, bin_size: int) -> None:
        self._arguments = (tuple(heads), length, bin_size)
        self._of_layer: dict[int, list[tuple[int, int]]] = {}
        for index, (layer, head) in enumerate(heads):
            self._of_layer.setdefault(layer, []).append((index, head))
        bins = -(-length // bin_size)
        self._total = torch.zeros(len(heads), bins, bins, dtype=torch.float64)
        self._queries = torch.zeros(len(heads), bins, dtype=torch.float64)

    @property
    def bin_size(self) -> int:
        return self._arguments[2]

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        for index, head in self._of_layer.get(block.layer, ()):
            if head not in block.heads:
                continue
            pattern = block.pattern[head - block.heads.start].double()
            rows, keys = (
                torch.arange(each.start, each.stop, device=pattern.device) // self.bin_size
                for each in (block.rows, block.keys)
            )
            into_bins = pattern.new_zeros(len(rows), self._total.shape[-1]).index_add_(1, keys, pattern)
            self._total[index].index_add_(0, rows.cpu(), into_bins.cpu())
            self._queries[index] += torch.bincount(rows.cpu(), minlength=self._queries.shape[-1])

    def __add__(self, other: Self) -> Self:
        if self._arguments != other._arguments:
            raise ValueError(
                f"maps of heads, length and bin size {self._arguments} and {other._arguments} do not add up"
            )
        both = type(self)(*self._arguments)
        both._total, both._queries = self._total + other._total, self._queries + other._queries
        return both

    def result(self) -> dict[str, Float[Tensor, "chosen query_bin key_bin"]]:
        return {"pattern": self._total / self._queries[..., None]}
