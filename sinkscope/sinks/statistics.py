"""Statistics: running sums over blocks that do not grow with the number of passages, divided in `result()`.

Statistics of the same configuration add up (`a + b`), so shards of a data set can be captured separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sinkscope.models.hidden_states import layer_outputs
from sinkscope.sinks.blocks import AttentionBlock, ResidualBlock, SampledBlock, ValueBlock

Block = AttentionBlock | SampledBlock | ValueBlock | ResidualBlock


class Statistic(Protocol):
    """Takes blocks and keeps sums of them. One with `residual = True` is given residual blocks too."""

    def update(self, block: Block) -> None: ...


def require_full_attention(block: Block, statistic: Statistic) -> TypeGuard[AttentionBlock]:
    """Whether a block is attention, with all of its rows.

    Raises:
        TypeError: it is a sample of rows, for which this statistic would give wrong numbers.
    """
    if isinstance(block, SampledBlock):
        raise TypeError(
            f"{type(statistic).__name__} needs every row of the attention pattern; "
            "use SampledSinkStatistics for a sample"
        )
    return isinstance(block, AttentionBlock)


def check_equal(name: str, first: Any, second: Any) -> None:
    """Check that two statistics have the same configuration.

    Raises:
        ValueError: they differ.
    """
    if first != second:
        raise ValueError(
            f"statistics of {name} {first} and {second} do not add up; capture both with the same"
        )


class Mean:
    """Mean over passages of an array per layer; a passage counts at the positions that it has."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.count = torch.zeros(shape[0], shape[2], dtype=torch.float64)

    def add(self, layer: int, values: Float[Tensor, "head position"]) -> None:
        length = values.shape[-1]
        self.total[layer, :, :length] += values.double().cpu()
        self.count[layer, :length] += 1

    def __add__(self, other: Mean) -> Mean:
        check_equal("shape", self.shape, other.shape)
        merged = Mean(self.shape)
        merged.total = self.total + other.total
        merged.count = self.count + other.count
        return merged

    def result(self) -> Float[Tensor, "layer head position"]:
        return self.total / self.count[:, None]  # NaN at positions that no passage has


def to_query_heads(norms: Float[Tensor, "kv_head position"], n_heads: int) -> Float[Tensor, "head position"]:
    """For each query head the row of the key-value head that it reads."""
    return norms.repeat_interleave(n_heads // len(norms), dim=0)


class AttentionReceived:
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

    def add(
        self,
        block: AttentionBlock,
        alpha: Float[Tensor, "head position"],
        norms: Float[Tensor, "head position"],
    ) -> None:
        raise NotImplementedError


class SinkStatistics(AttentionReceived):
    """Attention received by each position, and what is computed from it.

    Per passage, α_k = mean over queries i ≥ k of A[i, k] (Gu et al., ICLR 2025). Results, mean over the
    passages that
    have position k: `alpha`; `sink_rate`, the share of passages with α_k > epsilon (thresholded per passage,
    then averaged); `value_norm`, ‖v_k‖₂ of the key-value head that the query head reads; `weighted_norm`,
    α_k·‖v_k‖₂.
    """

    names = ("alpha", "sink_rate", "value_norm", "weighted_norm")

    def __init__(self, n_layers: int, n_heads: int, length: int, epsilon: float) -> None:
        super().__init__(n_heads)
        self.shape = (n_layers, n_heads, length)
        self.epsilon = epsilon
        self._means = {name: Mean(self.shape) for name in self.names}

    def add(
        self,
        block: AttentionBlock,
        alpha: Float[Tensor, "head position"],
        norms: Float[Tensor, "head position"],
    ) -> None:
        self._means["alpha"].add(block.layer, alpha)
        self._means["sink_rate"].add(block.layer, alpha > self.epsilon)
        self._means["value_norm"].add(block.layer, norms)
        self._means["weighted_norm"].add(block.layer, alpha * norms)

    def __add__(self, other: SinkStatistics) -> SinkStatistics:
        check_equal("epsilon", self.epsilon, other.epsilon)
        merged = SinkStatistics(*self.shape, self.epsilon)
        merged._means = {name: mean + other._means[name] for name, mean in self._means.items()}
        return merged

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {name: mean.result() for name, mean in self._means.items()}

    @property
    def count(self) -> Float[Tensor, " position"]:
        """How many passages have each position."""
        return self._means["alpha"].count[0]


class _QueryStatistic:
    """Mean over passages of a number per layer, head and query."""

    name: str

    def __init__(self, n_layers: int, n_heads: int, length: int) -> None:
        self.shape = (n_layers, n_heads, length)
        self._mean = Mean(self.shape)
        self._values: Tensor | None = None

    def compute(self, block: AttentionBlock) -> Float[Tensor, "head row"]:
        raise NotImplementedError

    def update(self, block: Block) -> None:
        if not require_full_attention(block, self):
            return
        if self._values is None:
            self._values = torch.zeros(self.shape[1], block.length, device=block.pattern.device)
        heads = slice(block.heads.start, block.heads.stop)
        self._values[heads, block.rows.start : block.rows.stop] = self.compute(block)
        if block.last:
            self._mean.add(block.layer, self._values)
            self._values = None

    def __add__(self, other: Self) -> Self:
        merged = type(self)(*self.shape)
        merged._mean = self._mean + other._mean
        return merged

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {self.name: self._mean.result()}


class RowEntropy(_QueryStatistic):
    """`entropy`: −Σ_k A[i, k] ln A[i, k] of each query, in nats; without the mass of a learned sink."""

    name = "entropy"

    def compute(self, block: AttentionBlock) -> Float[Tensor, "head row"]:
        return torch.special.entr(block.pattern).sum(-1)


class LearnedSink(_QueryStatistic):
    """`learned_sink`: 1 − Σ_k A[i, k], the attention to a sink that is a parameter (as in gpt-oss)."""

    name = "learned_sink"

    def compute(self, block: AttentionBlock) -> Float[Tensor, "head row"]:
        return 1 - block.pattern.sum(-1)


QUERY_STATISTICS: dict[str, type[_QueryStatistic]] = {
    statistic.name: statistic for statistic in (RowEntropy, LearnedSink)
}
STATISTICS = (*SinkStatistics.names, *QUERY_STATISTICS)
"""Names of all statistics over layer, head and position, in the order of tables."""


class SpanMass:
    """`span_mass`: attention to a span (a sum over its keys), mean over later queries, then over passages.

    Args:
        spans: a span for each passage, in their order. A passage with no query after its span does not count.
    """

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
        rows = slice(max(0, span.stop - block.rows.start), None)
        keys = slice(
            max(0, span.start - block.keys.start), max(0, min(span.stop, block.keys.stop) - block.keys.start)
        )
        mass = block.pattern[:, rows, keys].sum((1, 2)).double().cpu() / n_queries
        self._total[block.layer, block.heads.start : block.heads.stop] += mass
        self._count[block.layer] += block.last

    def __add__(self, other: SpanMass) -> SpanMass:
        """The passages of `other` are numbered after those of this one."""
        n_layers, n_heads = self._total.shape
        merged = SpanMass(n_layers, n_heads, [*self.spans, *other.spans])
        merged._total = self._total + other._total
        merged._count = self._count + other._count
        return merged

    def result(self) -> dict[str, Float[Tensor, "layer head"]]:
        return {"span_mass": self._total / self._count[:, None]}


class FirstValueNorms:
    """`value_norm`: ‖v‖₂ at the first positions of every passage; NaN after a passage's end.

    The only statistic that grows with the number of passages.
    """

    def __init__(self, n_layers: int, n_positions: int) -> None:
        self.shape = (n_layers, n_positions)
        self._norms: list[list[Tensor]] = [[] for _ in range(n_layers)]

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            n_positions = self.shape[1]
            norms = block.value[:, :n_positions].float().norm(dim=-1).cpu()
            padding = (0, n_positions - norms.shape[-1])
            self._norms[block.layer].append(functional.pad(norms, padding, value=float("nan")))

    def __add__(self, other: FirstValueNorms) -> FirstValueNorms:
        check_equal("shape", self.shape, other.shape)
        merged = FirstValueNorms(*self.shape)
        merged._norms = [first + second for first, second in zip(self._norms, other._norms, strict=True)]
        return merged

    def result(self) -> dict[str, Float[Tensor, "passage layer kv_head position"]]:
        return {"value_norm": torch.stack([torch.stack(norms) for norms in self._norms], dim=1)}


def residual_blocks(
    layers: Callable[[], Iterable[nn.Module]],
    statistics: Sequence[Statistic],
    spans: Sequence[range],
    first_passage: int,
) -> AbstractContextManager[None]:
    """Within the context every layer's output goes to the statistics with `residual = True`.

    Args:
        layers: called only if there is such a statistic.
        spans: the columns of each row of the batch that hold a passage.
        first_passage: the number of the batch's first passage.
    """
    receivers = [statistic for statistic in statistics if getattr(statistic, "residual", False)]
    if not receivers:
        return nullcontext()

    def receive(layer: int, output: Tensor) -> None:
        for row, span in enumerate(spans):
            block = ResidualBlock(layer, first_passage + row, output[row, span.start : span.stop])
            for statistic in receivers:
                statistic.update(block)

    return layer_outputs(layers(), receive)
