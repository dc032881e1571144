"""Running statistics over blocks: sums that do not grow with the number of passages, divided in `result()`."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.capture.blocks import AttentionBlock, ValueBlock

Block = AttentionBlock | ValueBlock


class Reducer(Protocol):
    """Takes blocks in, gives labelled arrays out."""

    def update(self, block: Block) -> None: ...

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]: ...


class _Mean:
    """Mean over passages of an array per layer, where each passage counts at its real positions only."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.count = torch.zeros(shape[0], shape[2], dtype=torch.float64)

    def add(self, layer: int, values: Float[Tensor, "batch head position"], mask: Tensor) -> None:
        length = values.shape[-1]
        self.total[layer, :, :length] += torch.where(mask[:, None], values, 0.0).double().sum(0).cpu()
        self.count[layer, :length] += mask.double().sum(0).cpu()

    def result(self) -> Float[Tensor, "layer head position"]:
        return self.total / self.count[:, None]  # NaN at positions that no passage has


class ColumnMass:
    """Attention received by each position, and what follows from it.

    Per passage, α_k = mean over real queries i ≥ k of A[i, k] (Gu et al., ICLR 2025). Results, mean over the passages that have
    position k: `alpha`; `sink_rate`, the share of passages with α_k > epsilon (thresholded per passage, then averaged);
    `value_norm`, ‖v_k‖₂ of the key-value head that the query head reads; `weighted_norm`, α_k·‖v_k‖₂.
    """

    def __init__(self, n_layers: int, n_heads: int, length: int, epsilon: float) -> None:
        shape = (n_layers, n_heads, length)
        self.epsilon = epsilon
        self._n_heads = n_heads
        self._means = {name: _Mean(shape) for name in ("alpha", "sink_rate", "value_norm", "weighted_norm")}
        self._norms: Tensor | None = None
        self._received: Tensor | None = None

    def update(self, block: Block) -> None:
        if isinstance(block, ValueBlock):
            norms = block.value.float().norm(dim=-1)
            self._norms = norms.repeat_interleave(self._n_heads // norms.shape[1], dim=1)
            return
        if block.rows.start == 0:
            self._received = torch.zeros_like(block.pattern[:, :, 0])
        assert self._received is not None and self._norms is not None, "a layer's values come before its attention"
        real_rows = block.mask[:, None, block.rows.start : block.rows.stop, None]
        self._received += torch.where(real_rows, block.pattern, 0.0).sum(-2)
        if block.rows.stop == block.mask.shape[1]:
            self._finish(block.layer, block.mask)

    def _finish(self, layer: int, mask: Tensor) -> None:
        assert self._received is not None and self._norms is not None
        queries = mask.flip(-1).cumsum(-1).flip(-1)  # real queries at or after each position
        alpha = self._received / queries[:, None].clamp(min=1)
        values = {
            "alpha": alpha,
            "sink_rate": (alpha > self.epsilon).float(),
            "value_norm": self._norms,
            "weighted_norm": alpha * self._norms,
        }
        for name, mean in self._means.items():
            mean.add(layer, values[name], mask)

    def result(self) -> dict[str, Float[Tensor, "layer head position"]]:
        return {name: mean.result() for name, mean in self._means.items()}

    @property
    def count(self) -> Float[Tensor, " position"]:
        """How many passages have each position."""
        return self._means["alpha"].count[0]


class MeanPattern:
    """Mean over passages of one layer's attention map; entries outside every passage are NaN."""

    def __init__(self, layer: int, n_heads: int, length: int) -> None:
        self._layer = layer
        self._total = torch.zeros(n_heads, length, length, dtype=torch.float64)
        self._count = torch.zeros(length, dtype=torch.float64)

    def update(self, block: Block) -> None:
        if not isinstance(block, AttentionBlock) or block.layer != self._layer:
            return
        rows = slice(block.rows.start, block.rows.stop)
        real = block.mask[:, None, rows, None]
        self._total[:, rows, : block.pattern.shape[-1]] += torch.where(real, block.pattern, 0.0).double().sum(0).cpu()
        self._count[rows] += block.mask[:, rows].double().sum(0).cpu()

    def result(self) -> dict[str, Float[Tensor, "head row key"]]:
        return {"pattern": self._total / self._count[:, None]}
