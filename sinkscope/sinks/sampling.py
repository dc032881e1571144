"""Estimate α from a sample of the queries: which rows are drawn, the estimate and its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sinkscope.sinks.blocks import ResidualBlock, SampledBlock, ValueBlock
from sinkscope.sinks.statistics import Block, Mean, check_equal, to_query_heads

ALWAYS_SAMPLED = 128
"""The first rows of a passage are always read: they are cheap, and α varies most there."""
MIN_SAMPLED_ROWS = 32
"""Rows drawn from the later rows of a passage, at least."""
MIN_EXPECTED_ROWS = 16
"""A passage does not count at positions with fewer drawn rows than this expected at or after them."""
Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Sampling:
    """A fraction of every passage's queries, drawn for each layer by `seed` without replacement.

    Shards that will be added need different seeds.
    """

    fraction: float
    seed: int = 0

    def rows(self, layer: int, passage: int, length: int) -> Int[Tensor, " row"]:
        """The queries that are read of one layer on one passage, ascending."""
        n_later = max(0, length - ALWAYS_SAMPLED)
        rng = np.random.default_rng([self.seed, passage, layer])
        drawn = np.empty(0, dtype=np.int64)
        if n_later:
            drawn = ALWAYS_SAMPLED + np.sort(rng.choice(n_later, self.n_drawn(length), replace=False))
        return torch.cat([torch.arange(length - n_later), torch.from_numpy(drawn)])

    def n_drawn(self, length: int) -> int:
        """How many of the rows after the first `ALWAYS_SAMPLED` are drawn."""
        n_later = max(0, length - ALWAYS_SAMPLED)
        return min(n_later, max(MIN_SAMPLED_ROWS, round(self.fraction * n_later)))

    def n_estimated(self, length: int) -> int:
        """At how many of its first positions a passage counts: those with enough rows after them."""
        n_later = max(0, length - ALWAYS_SAMPLED)
        n_drawn = self.n_drawn(length)
        if n_drawn == n_later:
            return length
        return max(0, length - int(np.ceil(MIN_EXPECTED_ROWS * n_later / n_drawn)) + 1)


class SampledSinkStatistics:
    """`SinkStatistics` from a sample of rows: `alpha` with a 95 % interval, `value_norm`, `weighted_norm`.

    `alpha_low` and `alpha_high` are the ends of the interval; α is unbiased, value norms are exact. At each
    position α is the mean over the passages with enough rows at or after it (`Sampling.n_estimated`, a
    function of their length), which `count` counts. A passage's α_k is the sum over the rows that are always
    read plus, for the later ones, the mean over the drawn rows times the number of later rows, divided by the
    number of queries at or after k.

    The interval is Wilson's (1927) for the mean μ of numbers in [0, 1] with variance φμ − μ². φ, the mean of
    a number weighted by itself, is 1 for attention that is all or nothing, and smaller the more evenly rows
    attend. It is estimated per position and drawn towards that of the whole head with the weight of one
    number of that size, so that a column without any observed attention still gets an upper end. Finite
    populations are corrected for, and the quantile is Student's. Over all positions of a passage the
    intervals have their nominal coverage; a column far above uniform whose attention comes from few rows is
    covered less often (about 85 % from one passage), as those rows may not be drawn.

    A position is NaN if some passage that counts has no drawn row at or after it. There is no sink rate: the
    threshold of a noisy mean is biased.
    """

    def __init__(self, n_layers: int, n_heads: int, length: int, sampling: Sampling) -> None:
        self.shape = (n_layers, n_heads, length)
        self.sampling = sampling
        self._means = {name: Mean(self.shape) for name in ("alpha", "certain", "value_norm", "weighted_norm")}
        self._means |= {name: Mean((n_layers, 1, length)) for name in ("share", "variance", "degrees")}
        self._sum = torch.zeros(self.shape, dtype=torch.float64)
        self._squares = torch.zeros(self.shape, dtype=torch.float64)
        self._norms: Tensor | None = None
        self._received: list[Tensor] = []
        """Attention from the rows always read, from the drawn rows, and its squares."""
        self._drawn_rows: list[Tensor] = []

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            self._norms = block.value.float().norm(dim=-1)
            shape = (self.shape[1], block.value.shape[1])
            self._received = [torch.zeros(shape, device=block.value.device) for _ in range(3)]
            self._drawn_rows = []
        elif isinstance(block, SampledBlock):
            n_certain = int((block.rows < ALWAYS_SAMPLED).sum())
            drawn = block.pattern[:, n_certain:]
            part = (slice(block.heads.start, block.heads.stop), slice(block.keys.start, block.keys.stop))
            self._received[0][part] += block.pattern[:, :n_certain].sum(1)
            self._received[1][part] += drawn.sum(1)
            self._received[2][part] += torch.linalg.vecdot(drawn, drawn, dim=1)
            if block.heads.start == 0:
                self._drawn_rows.append(block.rows[n_certain:])
            if block.last:
                self._add(block)
        elif not isinstance(block, ResidualBlock):
            raise TypeError(
                "SampledSinkStatistics was given full attention; capture with the sampling that it was made "
                "for"
            )

    def _add(self, block: SampledBlock) -> None:
        assert self._norms is not None, "a layer's values come before its attention"
        layer, length = block.layer, block.length
        n_estimated = self.sampling.n_estimated(length)
        certain, total, squares = (sums.double().cpu()[:, :n_estimated] for sums in self._received)
        positions = torch.arange(n_estimated)
        n_queries = (length - positions).double()
        # rows that could be drawn, and rows that were, at or after each position
        n_later = n_queries.clamp(max=max(0, length - ALWAYS_SAMPLED))
        n_before = torch.searchsorted(torch.cat(self._drawn_rows), positions)
        n_drawn = (n_later.new_tensor(sum(map(len, self._drawn_rows))) - n_before).double()
        share = n_later / n_queries
        mean = torch.where(n_later == 0, 0, total / n_drawn)
        alpha = certain / n_queries + share * mean
        norms = to_query_heads(self._norms, len(certain)).double().cpu()
        complete = n_drawn == n_later
        variance = share**2 * (1 - n_drawn / n_later) / (n_drawn - 1)
        self._means["alpha"].add(layer, alpha)
        self._means["certain"].add(layer, certain / n_queries)
        self._means["value_norm"].add(layer, norms)
        self._means["weighted_norm"].add(layer, alpha * norms[:, :n_estimated])
        self._means["share"].add(layer, share[None])
        self._means["variance"].add(layer, torch.where(complete, 0, variance)[None])
        self._means["degrees"].add(layer, torch.where(complete, 0, n_drawn - 1)[None])
        self._sum[layer, :, :n_estimated] += total
        self._squares[layer, :, :n_estimated] += squares

    def __add__(self, other: SampledSinkStatistics) -> SampledSinkStatistics:
        check_equal("fraction", self.sampling.fraction, other.sampling.fraction)
        merged = SampledSinkStatistics(*self.shape, self.sampling)
        merged._means = {name: mean + other._means[name] for name, mean in self._means.items()}
        merged._sum = self._sum + other._sum
        merged._squares = self._squares + other._squares
        return merged

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        means = {name: mean.result() for name, mean in self._means.items()}
        count = self._means["alpha"].count[:, None]
        tiny = 1e-300
        share = means["share"]
        estimate = means["alpha"] - means["certain"]
        typical = self._squares.sum(-1, keepdim=True) / self._sum.sum(-1, keepdim=True).clamp(min=tiny)
        phi = (self._squares + typical**2) / (self._sum + typical).clamp(min=tiny)
        phi = phi.maximum(self._squares / self._sum.clamp(min=tiny)).maximum(estimate / share.clamp(min=tiny))
        # Student's quantile, to the second order
        quantile = Z + (Z**3 + Z) / (4 * (means["degrees"] * count).clamp(min=1))
        spread = quantile**2 * means["variance"] / count
        # the ends are the roots of (estimate − share·μ)² = spread·(φ·μ − μ²)
        a = share**2 + spread
        b = 2 * share * estimate + spread * phi
        root = (b**2 - 4 * a * estimate**2).clamp(min=0).sqrt()
        low = 2 * estimate**2 / (b + root).clamp(min=tiny)
        high = (b + root) / (2 * a).clamp(min=tiny)
        return {
            "alpha": means["alpha"],
            "alpha_low": means["certain"] + share * low,
            "alpha_high": means["certain"] + share * high,
            "value_norm": means["value_norm"],
            "weighted_norm": means["weighted_norm"],
        }

    @property
    def count(self) -> Float[Tensor, " position"]:
        """How many passages count at each position."""
        return self._means["alpha"].count[0]
