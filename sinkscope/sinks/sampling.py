"""α from a part of the queries: which rows are drawn, and an interval that says how far the estimate can be off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sinkscope.sinks.blocks import ResidualBlock, SampledBlock, ValueBlock
from sinkscope.sinks.statistics import Block, Mean, to_query_heads

ALWAYS_SAMPLED = 128
"""The first rows of a passage are all taken: they cost next to nothing, and α of the first positions varies most there."""
MIN_SAMPLED_ROWS = 32
"""Rows drawn from a passage behind these, at least."""
LEAST_EXPECTED = 16
"""A passage tells nothing about its last positions, where fewer drawn rows than this are to be expected at or after them."""
Z = 1.959964


@dataclass(frozen=True)
class Sampling:
    """A share of every passage's queries, drawn for each layer by `seed` without replacement. Shards that will be added need seeds of their own."""

    share: float
    seed: int = 0

    def rows(self, layer: int, passage: int, length: int) -> Int[Tensor, " row"]:
        """The queries of one layer on one passage, ascending."""
        behind = max(0, length - ALWAYS_SAMPLED)
        rng = np.random.default_rng([self.seed, passage, layer])
        drawn = (
            ALWAYS_SAMPLED + np.sort(rng.choice(behind, self.drawn(length), replace=False))
            if behind
            else np.empty(0, dtype=np.int64)
        )
        return torch.cat([torch.arange(length - behind), torch.from_numpy(drawn)])

    def drawn(self, length: int) -> int:
        """How many of the rows behind the certain ones are drawn."""
        behind = max(0, length - ALWAYS_SAMPLED)
        return min(behind, max(MIN_SAMPLED_ROWS, round(self.share * behind)))

    def reach(self, length: int) -> int:
        """How many of a passage's positions are estimated: all where every row is read, else those with enough rows at or after them."""
        behind, drawn = max(0, length - ALWAYS_SAMPLED), self.drawn(length)
        return (
            length if drawn == behind else max(0, length - int(np.ceil(LEAST_EXPECTED * behind / drawn)) + 1)
        )


class SampledMass:
    """`alpha` as in `ColumnMass`, estimated without bias, with the ends of a 95 % interval `alpha_low`, `alpha_high`; `weighted_norm`; `value_norm`, exact.

    At each position α is the mean over the passages that reach far enough behind it (`Sampling.reach`, by their length alone), which `count` counts.
    A passage's α_k is the certain rows' sum plus, for those behind them, the drawn rows' mean times their number, over the number of queries at or after k.
    The interval is Wilson's (1927) for a mean μ of numbers in [0, 1] whose variance is φμ − μ². φ, the mean of a number weighted by itself, is 1 for
    attention that is all or nothing, and smaller the more evenly rows attend. It is estimated per position and drawn up towards that of the head with
    the weight of one number of that size, so that a column where nothing was seen still gets an upper end. Finite populations are corrected for, and
    Student's t stands for the normal quantile. Over all positions of a passage the intervals hold what they promise; a column far above uniform that lives
    of a few rows is covered less often (about 85 % from one passage), as those rows may not be drawn.
    A position has no value where some passage that counts has no drawn row at or after it. There is no sink rate: a threshold of a noisy mean is biased.
    """

    def __init__(self, n_layers: int, n_heads: int, length: int, sampling: Sampling) -> None:
        self._arguments = (n_layers, n_heads, length, sampling)
        full, narrow = (n_layers, n_heads, length), (n_layers, 1, length)
        self._means = {name: Mean(full) for name in ("alpha", "certain", "value_norm", "weighted_norm")}
        self._means |= {name: Mean(narrow) for name in ("share", "variance", "degrees")}
        self._sum, self._squares = (torch.zeros(full, dtype=torch.float64) for _ in range(2))
        self._norms: Tensor | None = None
        self._seen: list[Tensor] = []
        self._rows: list[Tensor] = []

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            self._norms = block.value.float().norm(dim=-1)
            length, n_heads = block.value.shape[1], self._arguments[1]
            self._seen, self._rows = (
                [torch.zeros(n_heads, length, device=block.value.device) for _ in range(3)],
                [],
            )
        elif isinstance(block, SampledBlock):
            certain = int((block.rows < ALWAYS_SAMPLED).sum())
            place = (slice(block.heads.start, block.heads.stop), slice(block.keys.start, block.keys.stop))
            self._seen[0][place] += block.pattern[:, :certain].sum(1)
            self._seen[1][place] += block.pattern[:, certain:].sum(1)
            self._seen[2][place] += torch.linalg.vecdot(
                block.pattern[:, certain:], block.pattern[:, certain:], dim=1
            )
            if block.heads.start == 0:
                self._rows.append(block.rows[certain:])
            if block.last:
                self._add(block)
        elif not isinstance(block, ResidualBlock):
            raise TypeError(
                "a sample's statistic was given whole attention; capture with the sampling it was made for"
            )

    def _add(self, block: SampledBlock) -> None:
        assert self._norms is not None, "a layer's values come before its attention"
        layer, length, reach = block.layer, block.length, self._arguments[3].reach(block.length)
        certain, total, squares = (each.double().cpu()[:, :reach] for each in self._seen)
        positions = torch.arange(reach)
        queries = (length - positions).double()
        behind = queries.clamp(
            max=max(0, length - ALWAYS_SAMPLED)
        )  # rows that could be drawn, at or after each position
        drawn = (
            behind.new_tensor(sum(map(len, self._rows)))
            - torch.searchsorted(torch.cat(self._rows), positions)
        ).double()
        share, zero = behind / queries, behind == 0
        mean = torch.where(zero, 0, total / drawn)
        alpha = certain / queries + share * mean
        norms = to_query_heads(self._norms, len(certain)).double().cpu()
        self._means["alpha"].add(layer, alpha)
        self._means["certain"].add(layer, certain / queries)
        self._means["value_norm"].add(layer, norms)
        self._means["weighted_norm"].add(layer, alpha * norms[:, :reach])
        self._means["share"].add(layer, share[None])
        known = drawn == behind
        self._means["variance"].add(
            layer, torch.where(known, 0, share**2 * (1 - drawn / behind) / (drawn - 1))[None]
        )
        self._means["degrees"].add(layer, torch.where(known, 0, drawn - 1)[None])
        self._sum[layer, :, :reach] += total
        self._squares[layer, :, :reach] += squares

    def __add__(self, other: SampledMass) -> SampledMass:
        if self._arguments[3].share != other._arguments[3].share:
            raise ValueError(
                f"samples of shares {self._arguments[3].share} and {other._arguments[3].share} do not add up"
            )
        both = SampledMass(*self._arguments)
        both._means = {name: mean + other._means[name] for name, mean in self._means.items()}
        both._sum, both._squares = self._sum + other._sum, self._squares + other._squares
        return both

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        means = {name: mean.result() for name, mean in self._means.items()}
        count, tiny = self._means["alpha"].count[:, None], 1e-300
        share, estimate = means["share"], means["alpha"] - means["certain"]
        typical = self._squares.sum(-1, keepdim=True) / self._sum.sum(-1, keepdim=True).clamp(min=tiny)
        size = (self._squares + typical**2) / (self._sum + typical).clamp(min=tiny)
        size = size.maximum(self._squares / self._sum.clamp(min=tiny)).maximum(
            estimate / share.clamp(min=tiny)
        )
        quantile = Z + (Z**3 + Z) / (
            4 * (means["degrees"] * count).clamp(min=1)
        )  # Student's, to the second order
        spread = quantile**2 * means["variance"] / count
        # the ends are the roots of (estimate − share·μ)² = spread·(size·μ − μ²)
        a, b = share**2 + spread, 2 * share * estimate + spread * size
        root = (b**2 - 4 * a * estimate**2).clamp(min=0).sqrt()
        low, high = 2 * estimate**2 / (b + root).clamp(min=tiny), (b + root) / (2 * a).clamp(min=tiny)
        ends = {"alpha_low": means["certain"] + share * low, "alpha_high": means["certain"] + share * high}
        return (
            {"alpha": means["alpha"]} | ends | {name: means[name] for name in ("value_norm", "weighted_norm")}
        )

    @property
    def count(self) -> Float[Tensor, " position"]:
        """How many passages tell something about each position."""
        return self._means["alpha"].count[0]
