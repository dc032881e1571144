"""Attention maps of heads in bins of positions, so that the size of a map does not grow with the passage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.sinks.statistics import Block, check_equal, require_full_attention

Head = tuple[int, int]
"""Layer and head, from 0."""
MAX_BINS = 64
"""Bins per side of the maps of all heads of a model."""
MAX_CELLS = 2**22
"""Cells of the maps of all heads together: 64 × 64 for 32 × 32 heads."""


def bin_size_for(n_heads: int, length: int) -> int:
    """The bin size that keeps the maps of `n_heads` heads within `MAX_BINS` and `MAX_CELLS`."""
    return -(-length // max(1, min(MAX_BINS, math.isqrt(MAX_CELLS // n_heads))))


def heads_of(layers: Iterable[int], n_heads: int) -> list[Head]:
    """All heads of some layers."""
    return [(layer, head) for layer in layers for head in range(n_heads)]


class BinnedPattern:
    """`pattern`: attention into bins of keys (a sum), mean over bins of queries and over passages.

    A bin has `bin_size` positions, or fewer at the end of `length`, the length of the longest passage. A bin
    size of 1 gives the attention map itself. Rows that no passage has are NaN.

    Args:
        heads: pairs (layer, head), one map each, in this order.
        full_length_only: leave out passages that are shorter than `length`.
    """

    def __init__(
        self, heads: Sequence[Head], length: int, bin_size: int, *, full_length_only: bool = False
    ) -> None:
        self.heads = tuple(heads)
        self.length = length
        self.bin_size = bin_size
        self.full_length_only = full_length_only
        self._by_layer: dict[int, list[tuple[int, int]]] = {}
        for index, (layer, head) in enumerate(heads):
            self._by_layer.setdefault(layer, []).append((index, head))
        n_bins = -(-length // bin_size)
        self._total = torch.zeros(len(heads), n_bins, n_bins, dtype=torch.float64)
        self._n_queries = torch.zeros(len(heads), n_bins, dtype=torch.float64)

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        if self.full_length_only and block.length != self.length:
            return
        for index, head in self._by_layer.get(block.layer, ()):
            if head not in block.heads:
                continue
            pattern = block.pattern[head - block.heads.start].double()
            rows, keys = (
                torch.arange(positions.start, positions.stop, device=pattern.device) // self.bin_size
                for positions in (block.rows, block.keys)
            )
            into_bins = pattern.new_zeros(len(rows), self._total.shape[-1]).index_add_(1, keys, pattern)
            self._total[index].index_add_(0, rows.cpu(), into_bins.cpu())
            self._n_queries[index] += torch.bincount(rows.cpu(), minlength=self._n_queries.shape[-1])

    def __add__(self, other: Self) -> Self:
        config = (self.heads, self.length, self.bin_size, self.full_length_only)
        check_equal(
            "heads, length, bin size",
            config,
            (other.heads, other.length, other.bin_size, other.full_length_only),
        )
        merged = type(self)(self.heads, self.length, self.bin_size, full_length_only=self.full_length_only)
        merged._total = self._total + other._total
        merged._n_queries = self._n_queries + other._n_queries
        return merged

    def result(self) -> dict[str, Float[Tensor, "chosen query_bin key_bin"]]:
        return {"pattern": self._total / self._n_queries[..., None]}
