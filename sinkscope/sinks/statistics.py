"""Statistics: sums over blocks that do not grow with the number of passages, divided in `result()`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sinkscope.sinks.capture import AttentionBlock, Block, Statistic, ValueBlock, needs_scores

PerPosition = Float[Tensor, "head position"]
Head = tuple[int, int]
"""Layer and head, from 0."""
MAX_BINS = 64
"""Bins per side of the maps of all heads of a model."""
MAX_CELLS = 2**22
"""Cells of the maps of all heads together: 64 × 64 for 32 × 32 heads."""


def n_comparable(length: int) -> int:
    """How many of the first positions of a passage have at least half of its queries at or after them.

    α of a later position is a mean over fewer queries, which attend to themselves and their neighbors, so
    that the last positions of a passage would be among its strongest.
    """
    return length // 2 + 1 if length > 1 else length


class Accumulator:
    """Sums that add up (`a + b`), so shards of a data set can be captured separately.

    The passages of `b` are numbered after those of `a`.
    """

    config: ClassVar[tuple[str, ...]] = ()
    """Attributes that must be the same in both."""
    sums: ClassVar[tuple[str, ...]]
    """Attributes that are added."""

    def __add__(self, other: Self) -> Self:
        for name in self.config:
            first, second = getattr(self, name), getattr(other, name)
            if first != second:
                raise ValueError(
                    f"statistics of {name} {first} and {second} do not add up; capture both with the same"
                )
        merged = copy(self)
        for name in self.sums:
            setattr(merged, name, _add(getattr(self, name), getattr(other, name)))
        return merged


def _add(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return {key: _add(value, second[key]) for key, value in first.items()}
    return first + second


def require_full_attention(block: Block, statistic: Statistic) -> TypeGuard[AttentionBlock]:
    """Whether a block is attention, with all of its rows.

    Raises:
        TypeError: it is a sample of rows, for which this statistic would give wrong numbers.
    """
    if isinstance(block, AttentionBlock) and block.is_sample:
        raise TypeError(
            f"{type(statistic).__name__} needs every row of the attention pattern; "
            "use SampledSinkStatistics for a sample"
        )
    return isinstance(block, AttentionBlock)


class Mean(Accumulator):
    """Mean over passages of an array per layer; a passage counts at the positions that it has."""

    config = ("shape",)
    sums = ("total", "count")

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.count = torch.zeros(shape[0], shape[2], dtype=torch.float64)

    def add(self, layer: int, values: PerPosition) -> None:
        length = values.shape[-1]
        self.total[layer, :, :length] += values.double().cpu()
        self.count[layer, :length] += 1

    def result(self) -> Float[Tensor, "layer head position"]:
        return self.total / self.count[:, None]  # NaN at positions that no passage has


def to_query_heads(norms: Float[Tensor, "kv_head position"], n_heads: int) -> PerPosition:
    """For each query head the row of the key-value head that it reads."""
    return norms.repeat_interleave(n_heads // len(norms), dim=0)


class AttentionReceived(Accumulator):
    """Sums the attention that each position of a passage receives; calls `add` when a layer is complete."""

    def __init__(self, n_heads: int) -> None:
        self.n_heads = n_heads
        self._norms: Tensor | None = None
        self._received: Tensor | None = None

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            self._norms = block.value.float().norm(dim=-1)
            self._received = None
        if not require_full_attention(block, self):
            return
        assert self._norms is not None, "a layer's values come before its attention"
        device = block.pattern.device
        if self._received is None:
            self._received = torch.zeros(self.n_heads, block.length, device=device)
        heads = slice(block.heads.start, block.heads.stop)
        self._received[heads, block.keys.start : block.keys.stop] += block.pattern.sum(1)
        if block.last:
            n_queries = torch.arange(block.length, 0, -1, device=device)  # at or after each position
            self.add(block, self._received / n_queries, to_query_heads(self._norms, self.n_heads))

    def add(self, block: AttentionBlock, alpha: PerPosition, norms: PerPosition) -> None:
        raise NotImplementedError


class SinkStatistics(AttentionReceived):
    """Attention received by each position, and what is computed from it.

    Per passage, α_k = mean over queries i ≥ k of A[i, k] (Gu et al., ICLR 2025). Results, mean over the
    passages that have position k: `alpha`; `sink_rate`, the share of passages with α_k > epsilon (thresholded
    per passage, then averaged); `value_norm`, ‖v_k‖₂ of the key-value head that the query head reads;
    `weighted_norm`, α_k·‖v_k‖₂.
    """

    names = ("alpha", "sink_rate", "value_norm", "weighted_norm")
    config = ("shape", "epsilon")
    sums = ("_means",)

    def __init__(self, n_layers: int, n_heads: int, length: int, epsilon: float) -> None:
        super().__init__(n_heads)
        self.shape = (n_layers, n_heads, length)
        self.epsilon = epsilon
        self._means = {name: Mean(self.shape) for name in self.names}

    def add(self, block: AttentionBlock, alpha: PerPosition, norms: PerPosition) -> None:
        for name, values in zip(self.names, (alpha, alpha > self.epsilon, norms, alpha * norms), strict=True):
            self._means[name].add(block.layer, values)

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {name: mean.result() for name, mean in self._means.items()}

    @property
    def count(self) -> Float[Tensor, " position"]:
        """How many passages have each position."""
        return self._means["alpha"].count.amax(0)  # some layers may not attend


def row_entropy(block: AttentionBlock) -> Float[Tensor, "head row"]:
    """−Σ_k A[i, k] ln A[i, k] of each query, in nats; without the mass of a learned sink."""
    return torch.special.entr(block.pattern).sum(-1)


def learned_sink(block: AttentionBlock) -> Float[Tensor, "head row"]:
    """1 − Σ_k A[i, k], the attention to a sink that is a parameter (as in gpt-oss)."""
    return 1 - block.pattern.sum(-1)


def attention_distance(block: AttentionBlock) -> Float[Tensor, "head row"]:
    """Σ_k A[i, k]·(i − k) / Σ_k A[i, k] of each query, in tokens; NaN if it attends to no token at all.

    The distance of Vig & Belinkov (BlackboxNLP 2019), who sum over the queries of a text before they divide.
    """
    rows = block.rows.to(block.pattern.device)
    keys = torch.arange(block.keys.start, block.keys.stop, device=rows.device)
    return rows - block.pattern @ keys.float() / block.pattern.sum(-1)


QUERY_STATISTICS = {
    "entropy": row_entropy,
    "learned_sink": learned_sink,
    "attention_distance": attention_distance,
}
KEY_NORM = "key_norm"
SCORES = "attention_scores"
STATISTICS = (*SinkStatistics.names, *QUERY_STATISTICS, KEY_NORM)
"""Names of all statistics over layer, head and position, in the order of tables."""


class QueryStatistic(Accumulator):
    """One of `QUERY_STATISTICS`, a number per layer, head and query: mean over passages."""

    config = ("name",)
    sums = ("_mean",)

    def __init__(self, name: str, shape: tuple[int, int, int]) -> None:
        self.name = name
        self._mean = Mean(shape)
        self._values: Tensor | None = None

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        if self._values is None:
            n_heads = self._mean.shape[1]
            self._values = torch.zeros(n_heads, block.length, device=block.pattern.device)
        heads = slice(block.heads.start, block.heads.stop)
        self._values[heads, block.rows] = QUERY_STATISTICS[self.name](block)
        if block.last:
            self._mean.add(block.layer, self._values)
            self._values = None

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {self.name: self._mean.result()}


class KeyNorms(Accumulator):
    """`key_norm`, ‖k‖₂ of the key that each query head reads: mean over passages. Only `tiled` gives keys."""

    sums = ("_mean",)

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._mean = Mean(shape)

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock) and block.key is not None:
            norms = block.key.float().norm(dim=-1)
            self._mean.add(block.layer, to_query_heads(norms, self._mean.shape[1]))

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {KEY_NORM: self._mean.result()}


@dataclass(frozen=True)
class OfPassage:
    """Hands the blocks of one passage to `statistics`: every row, also where the capture samples rows."""

    passage: int
    statistics: Sequence[Statistic]

    def needs_scores(self, passage: int) -> bool:
        return passage == self.passage and needs_scores(self.statistics, passage)

    def needs_every_row(self, passage: int) -> bool:
        return passage == self.passage

    def update(self, block: Block) -> None:
        is_sample = isinstance(block, AttentionBlock) and block.is_sample
        if block.passage == self.passage and not is_sample:
            for statistic in self.statistics:
                statistic.update(block)


class SpanMass(Accumulator):
    """`span_mass`: attention to a span (a sum over its keys), mean over later queries, then over passages.

    Args:
        spans: a span for each passage, in their order. A passage with no query after its span does not count.
    """

    sums = ("spans", "_total", "_count")

    def __init__(self, n_layers: int, n_heads: int, spans: Sequence[range]) -> None:
        self.spans = list(spans)
        self._total = torch.zeros(n_layers, n_heads, dtype=torch.float64)
        self._count = torch.zeros(n_layers, dtype=torch.float64)

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        span = self.spans[block.passage]
        n_queries = block.length - span.stop
        if n_queries <= 0:
            return
        rows = slice(max(0, span.stop - int(block.rows[0])), None)
        keys = slice(
            max(0, span.start - block.keys.start), max(0, min(span.stop, block.keys.stop) - block.keys.start)
        )
        mass = block.pattern[:, rows, keys].sum((1, 2)).double().cpu() / n_queries
        self._total[block.layer, block.heads.start : block.heads.stop] += mass
        self._count[block.layer] += block.last

    def result(self) -> dict[str, Float[Tensor, "layer head"]]:
        return {"span_mass": self._total / self._count[:, None]}


class FirstValueNorms(Accumulator):
    """`value_norm`: ‖v‖₂ at the first positions of every passage; NaN after its end, and in other layers.

    The only statistic that grows with the number of passages.
    """

    config = ("n_positions",)
    sums = ("_norms",)

    def __init__(self, n_layers: int, n_positions: int) -> None:
        self.n_positions = n_positions
        self._norms: dict[int, list[Tensor]] = {layer: [] for layer in range(n_layers)}

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            norms = block.value[:, : self.n_positions].float().norm(dim=-1).cpu()
            padding = (0, self.n_positions - norms.shape[-1])
            self._norms[block.layer].append(functional.pad(norms, padding, value=float("nan")))

    def result(self) -> dict[str, Float[Tensor, "passage layer kv_head position"]]:
        missing = [torch.full_like(norms, float("nan")) for norms in max(self._norms.values(), key=len)]
        layers = [torch.stack(norms or missing) for norms in self._norms.values()]
        return {"value_norm": torch.stack(layers, dim=1)}


def bin_size_for(n_heads: int, length: int) -> int:
    """The bin size that keeps the maps of `n_heads` heads within `MAX_BINS` and `MAX_CELLS`."""
    return -(-length // max(1, min(MAX_BINS, math.isqrt(MAX_CELLS // n_heads))))


class _BinnedMaps:
    """Sums over bins of queries and keys, for some heads; a bin has `bin_size` positions."""

    def __init__(self, heads: Sequence[Head], length: int, bin_size: int) -> None:
        self.heads = tuple(heads)
        self.length = length
        self.bin_size = bin_size
        self._n_bins = -(-length // bin_size)
        self._by_layer: dict[int, list[tuple[int, int]]] = {}
        for index, (layer, head) in enumerate(heads):
            self._by_layer.setdefault(layer, []).append((index, head))

    def _zeros(self) -> Float[Tensor, "head query_bin key_bin"]:
        return torch.zeros(len(self.heads), self._n_bins, self._n_bins, dtype=torch.float64)

    def _select(self, block: AttentionBlock) -> tuple[list[int], list[int]]:
        """The maps that a block belongs to, and their heads by their number in the block."""
        pairs = [pair for pair in self._by_layer.get(block.layer, ()) if pair[1] in block.heads]
        return [index for index, _ in pairs], [head - block.heads.start for _, head in pairs]

    def _add(
        self, sums: Tensor, indices: list[int], block: AttentionBlock, values: Float[Tensor, "map row key"]
    ) -> None:
        """Add values of a block to the maps `indices` of `sums`."""
        rows = block.rows // self.bin_size
        keys = torch.arange(block.keys.start, block.keys.stop, device=values.device) // self.bin_size
        into_bins = values.new_zeros(*values.shape[:2], self._n_bins).index_add_(2, keys, values).cpu()
        for index, of_head in zip(indices, into_bins, strict=True):
            sums[index].index_add_(0, rows, of_head)


class BinnedPattern(_BinnedMaps, Accumulator):
    """`pattern`: attention into bins of keys (a sum), mean over bins of queries and over passages.

    A bin has `bin_size` positions, or fewer at the end of `length`, the length of the longest passage. A bin
    size of 1 gives the attention map itself. Rows that no passage has are NaN.

    Args:
        heads: one map each, in this order.
        full_length_only: leave out passages that are shorter than `length`.
    """

    config = ("heads", "length", "bin_size", "full_length_only")
    sums = ("_total", "_n_queries")

    def __init__(
        self, heads: Sequence[Head], length: int, bin_size: int, *, full_length_only: bool = False
    ) -> None:
        super().__init__(heads, length, bin_size)
        self.full_length_only = full_length_only
        self._total = self._zeros()
        self._n_queries = torch.zeros(len(heads), self._n_bins, dtype=torch.float64)

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        if self.full_length_only and block.length != self.length:
            return
        indices, heads = self._select(block)
        if not indices:
            return
        self._add(self._total, indices, block, block.pattern[heads].double())
        self._n_queries[indices] += torch.bincount(block.rows // self.bin_size, minlength=self._n_bins)

    def result(self) -> dict[str, Float[Tensor, "head query_bin key_bin"]]:
        return {"pattern": self._total / self._n_queries[..., None]}


class BinnedScores(_BinnedMaps):
    """`attention_scores`: scores before the softmax, mean over bins of queries and of the keys they can see.

    With the layer's scaling, softcap and position bias. NaN where no query of a bin sees a key of the other.
    For one passage, through the backend `tiled`; arguments as of `BinnedPattern`.
    """

    def __init__(self, heads: Sequence[Head], length: int, bin_size: int) -> None:
        super().__init__(heads, length, bin_size)
        self._total = self._zeros()
        self._n_visible = self._zeros()

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        assert block.scores is not None, "the backend tiled gives scores"
        indices, heads = self._select(block)
        scores = block.scores[heads].double()
        visible = scores.isfinite()
        self._add(self._total, indices, block, scores.masked_fill(~visible, 0.0))
        self._add(self._n_visible, indices, block, visible.double())

    def needs_scores(self, passage: int) -> bool:
        return True

    def result(self) -> dict[str, Float[Tensor, "head query_bin key_bin"]]:
        return {SCORES: self._total / self._n_visible}
