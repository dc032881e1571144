"""Massive activations: single numbers of the residual stream that dwarf all others, mostly at sink tokens (Sun et al., arXiv 2402.17762)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sinkscope.sinks.blocks import ResidualBlock
from sinkscope.sinks.statistics import Block

MIN_MAGNITUDE, TIMES_MEDIAN = 100.0, 1000.0


@dataclass
class _Layer:
    largest: float = 0.0
    where: tuple[int, int, int] = (0, 0, 0)
    ratios: float = 0.0
    massive: int = 0
    passages: int = 0


class MassiveActivations:
    """Per layer, the largest |x| of the residual stream behind it, and how often it is massive: above 100 and a thousand times the passage's median |x|."""

    residual = True

    def __init__(self, n_layers: int) -> None:
        self._layers = [_Layer() for _ in range(n_layers)]

    def update(self, block: Block) -> None:
        if not isinstance(block, ResidualBlock):
            return
        layer, size = self._layers[block.layer], block.residual.abs().float()
        flat = int(size.argmax())
        largest, median = float(size.flatten()[flat]), float(size.median())
        layer.passages += 1
        layer.ratios += largest / median if median > 0 else float("inf")
        layer.massive += largest > MIN_MAGNITUDE and largest >= TIMES_MEDIAN * median
        if largest > layer.largest:
            position, dimension = divmod(flat, size.shape[1])
            layer.largest, layer.where = largest, (block.passage, position, dimension)

    def __add__(self, other: MassiveActivations) -> MassiveActivations:
        """Passages of `other` are counted behind those of this one."""
        both = MassiveActivations(len(self._layers))
        for place, (a, b) in enumerate(zip(self._layers, other._layers, strict=True)):
            passage, position, dimension = b.where
            largest, where = max(
                (a.largest, a.where), (b.largest, (passage + a.passages, position, dimension))
            )
            both._layers[place] = _Layer(
                largest, where, a.ratios + b.ratios, a.massive + b.massive, a.passages + b.passages
            )
        return both

    def table(self) -> pd.DataFrame:
        """One row per layer: layer; largest, and its passage, position and dimension; times_median, a passage's largest over its median, mean
        over passages; massive, the share of passages that have a massive activation there."""
        rows = []
        for number, layer in enumerate(self._layers):
            passage, position, dimension = layer.where
            row = {
                "layer": number,
                "largest": layer.largest,
                "passage": passage,
                "position": position,
                "dimension": dimension,
            }
            n = max(1, layer.passages)
            rows.append(row | {"times_median": layer.ratios / n, "massive": layer.massive / n})
        return pd.DataFrame(rows)
