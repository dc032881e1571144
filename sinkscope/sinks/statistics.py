"""Running statistics over blocks: sums that do not grow with the number of passages, divided in `result()`.

Those that give arrays add up (`a + b`), so that shards of a data set can be captured apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sinkscope.sinks.blocks import AttentionBlock, ResidualBlock, SampledBlock, ValueBlock

Block = AttentionBlock | SampledBlock | ValueBlock | ResidualBlock


class Statistic(Protocol):
    """Takes blocks in and keeps what it needs of them. One with `residual = True` is also given residual blocks."""

    def update(self, block: Block) -> None: ...


def require_full_attention(block: Block, statistic: Statistic) -> TypeGuard[AttentionBlock]:
    """Whether a block is whole attention.

    Raises:
        TypeError: it is a sample, of which this statistic would make wrong numbers.
    """
    if isinstance(block, SampledBlock):
        raise TypeError(
            f"{type(statistic).__name__} needs every row of the attention pattern; a sample goes to SampledMass"
        )
    return isinstance(block, AttentionBlock)


class Mean:
    """Mean over passages of an array per layer; a passage counts at the positions that it has."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.count = torch.zeros(shape[0], shape[2], dtype=torch.float64)

    def add(self, layer: int, values: Float[Tensor, "head position"]) -> None:
        length = values.shape[-1]
        self.total[layer, :, :length] += values.double().cpu()
        self.count[layer, :length] += 1

    def __add__(self, other: Mean) -> Mean:
        if self._shape != other._shape:
            raise ValueError(
                f"shards of shapes {self._shape} and {other._shape} do not add up; capture them with one length"
            )
        both = Mean(self._shape)
        both.total, both.count = self.total + other.total, self.count + other.count
        return both

    def result(self) -> Float[Tensor, "layer head position"]:
        return self.total / self.count[:, None]  # NaN at positions that no passage has


def to_query_heads(norms: Float[Tensor, "kv_head position"], n_heads: int) -> Float[Tensor, "head position"]:
    """For each query head the row of the key-value head that it reads."""
    return norms.repeat_interleave(n_heads // len(norms), dim=0)


class AttentionReceived:
    """Adds up what each position of a passage receives, and hands over α once a layer is through."""

    def __init__(self, n_heads: int) -> None:
        self._n_heads = n_heads
        self._norms: Tensor | None = None
        self._received: Tensor | None = None

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            self._norms, self._received = block.value.float().norm(dim=-1), None
        if not require_full_attention(block, self):
            return
        assert self._norms is not None, "a layer's values come before its attention"
        if self._received is None:
            self._received = torch.zeros(self._n_heads, block.length, device=block.pattern.device)
        self._received[block.heads.start : block.heads.stop, block.keys.start : block.keys.stop] += (
            block.pattern.sum(1)
        )
        if block.last:
            queries = torch.arange(
                block.length, 0, -1, device=block.pattern.device
            )  # at or after each position
            self.add(block, self._received / queries, to_query_heads(self._norms, self._n_heads))

    def add(
        self,
        block: AttentionBlock,
        alpha: Float[Tensor, "head position"],
        norms: Float[Tensor, "head position"],
    ) -> None:
        raise NotImplementedError


class SinkStatistics(AttentionReceived):
    """Attention received by each position, and what follows from it.

    Per passage, α_k = mean over queries i ≥ k of A[i, k] (Gu et al., ICLR 2025). Results, mean over the passages that have
    position k: `alpha`; `sink_rate`, the share of passages with α_k > epsilon (thresholded per passage, then averaged);
    `value_norm`, ‖v_k‖₂ of the key-value head that the query head reads; `weighted_norm`, α_k·‖v_k‖₂.
    """

    def __init__(self, n_layers: int, n_heads: int, length: int, epsilon: float) -> None:
        super().__init__(n_heads)
        self._arguments = (n_layers, n_heads, length, epsilon)
        self._means = {
            name: Mean((n_layers, n_heads, length))
            for name in ("alpha", "sink_rate", "value_norm", "weighted_norm")
        }

    def add(
        self,
        block: AttentionBlock,
        alpha: Float[Tensor, "head position"],
        norms: Float[Tensor, "head position"],
    ) -> None:
        self._means["alpha"].add(block.layer, alpha)
        self._means["sink_rate"].add(block.layer, alpha > self._arguments[3])
        self._means["value_norm"].add(block.layer, norms)
        self._means["weighted_norm"].add(block.layer, alpha * norms)

    def __add__(self, other: SinkStatistics) -> SinkStatistics:
        if self._arguments[3] != other._arguments[3]:
            raise ValueError(
                f"shards with thresholds {self._arguments[3]} and {other._arguments[3]} do not add up"
            )
        both = SinkStatistics(*self._arguments)
        both._means = {name: mean + other._means[name] for name, mean in self._means.items()}
        return both

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {name: mean.result() for name, mean in self._means.items()}

    @property
    def count(self) -> Float[Tensor, " position"]:
        """How many passages have each position."""
        return self._means["alpha"].count[0]


class _Rows:
    """Mean over passages of a number per layer, head and query."""

    name: str

    def __init__(self, n_layers: int, n_heads: int, length: int) -> None:
        self._shape = (n_layers, n_heads, length)
        self._mean = Mean(self._shape)
        self._row: Tensor | None = None

    def of(self, block: AttentionBlock) -> Float[Tensor, "head row"]:
        raise NotImplementedError

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        if self._row is None:
            self._row = torch.zeros(self._shape[1], block.length, device=block.pattern.device)
        self._row[block.heads.start : block.heads.stop, block.rows.start : block.rows.stop] = self.of(block)
        if block.last:
            self._mean.add(block.layer, self._row)
            self._row = None

    def __add__(self, other: Self) -> Self:
        both = type(self)(*self._shape)
        both._mean = self._mean + other._mean
        return both

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {self.name: self._mean.result()}


class RowEntropy(_Rows):
    """`entropy`: −Σ_k A[i, k] ln A[i, k] of each query, in nats; the mass of a learned sink is not part of the sum."""

    name = "entropy"

    def of(self, block: AttentionBlock) -> Float[Tensor, "head row"]:
        return torch.special.entr(block.pattern).sum(-1)


class LearnedSink(_Rows):
    """`learned_sink`: 1 − Σ_k A[i, k], what each query gives to a sink that is a parameter (gpt-oss); zero in every other model."""

    name = "learned_sink"

    def of(self, block: AttentionBlock) -> Float[Tensor, "head row"]:
        return 1 - block.pattern.sum(-1)


QUERY_STATISTICS: dict[str, type[_Rows]] = {
    statistic.name: statistic for statistic in (RowEntropy, LearnedSink)
}


class SpanMass:
    """`span_mass`: attention that the queries behind a span of positions give to it (a sum over its keys), mean over these queries, then over passages.

    Args:
        spans: a span for each passage, in their order. A passage without a query behind its span does not count.
    """

    def __init__(self, n_layers: int, n_heads: int, spans: Sequence[range]) -> None:
        self._spans = list(spans)
        self._total = torch.zeros(n_layers, n_heads, dtype=torch.float64)
        self._count = torch.zeros(n_layers, dtype=torch.float64)

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        span = self._spans[block.passage]
        queries = block.length - span.stop
        if queries <= 0:
            return
        rows = slice(max(0, span.stop - block.rows.start), None)
        keys = slice(
            max(0, span.start - block.keys.start), max(0, min(span.stop, block.keys.stop) - block.keys.start)
        )
        self._total[block.layer, block.heads.start : block.heads.stop] += (
            block.pattern[:, rows, keys].sum((1, 2)).double().cpu() / queries
        )
        self._count[block.layer] += block.last

    def __add__(self, other: SpanMass) -> SpanMass:
        """Passages of `other` are counted behind those of this one."""
        n_layers, n_heads = self._total.shape
        both = SpanMass(n_layers, n_heads, [*self._spans, *other._spans])
        both._total, both._count = self._total + other._total, self._count + other._count
        return both

    def result(self) -> dict[str, Float[Tensor, "layer head"]]:
        return {"span_mass": self._total / self._count[:, None]}


class FirstValueNorms:
    """`value_norm`: ‖v‖₂ at the first positions of every passage, in their order; NaN behind a passage's end. Grows with the number of passages."""

    def __init__(self, n_layers: int, positions: int) -> None:
        self._positions = positions
        self._norms: list[list[Tensor]] = [[] for _ in range(n_layers)]

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            norms = block.value[:, : self._positions].float().norm(dim=-1).cpu()
            self._norms[block.layer].append(
                functional.pad(norms, (0, self._positions - norms.shape[-1]), value=float("nan"))
            )

    def __add__(self, other: FirstValueNorms) -> FirstValueNorms:
        if (self._positions, len(self._norms)) != (other._positions, len(other._norms)):
            raise ValueError("value norms of different numbers of positions or layers do not add up")
        both = FirstValueNorms(len(self._norms), self._positions)
        both._norms = [mine + theirs for mine, theirs in zip(self._norms, other._norms, strict=True)]
        return both

    def result(self) -> dict[str, Float[Tensor, "passage layer kv_head position"]]:
        return {"value_norm": torch.stack([torch.stack(norms) for norms in self._norms], dim=1)}
