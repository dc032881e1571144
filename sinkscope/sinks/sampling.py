"""Estimate α from a sample of the queries, with an interval."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.sinks.capture import ALWAYS_SAMPLED, AttentionBlock, Block, Sampling, ValueBlock
from sinkscope.sinks.statistics import Accumulator, Mean, to_query_heads

Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""


class SampledSinkStatistics(Accumulator):
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

    config = ("shape", "fraction")
    sums = ("_means", "_sum", "_squares")

    def __init__(self, n_layers: int, n_heads: int, length: int, sampling: Sampling) -> None:
        self.shape = (n_layers, n_heads, length)
        self.sampling = sampling
        self.fraction = sampling.fraction
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
        elif isinstance(block, AttentionBlock):
            if not block.is_sample:
                raise TypeError(
                    "SampledSinkStatistics was given full attention; capture with the sampling that it was "
                    "made for"
                )
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

    def _add(self, block: AttentionBlock) -> None:
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
        return self._means["alpha"].count.amax(0)  # some layers may not attend
