"""What the page shows of one model on one kind of text: numbers by layer, head and position, maps of heads, and the tokens of one passage; packed small."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

BINS = 256
"""Positions of longer passages are shown in this many bins, or a few less."""
CELLS = 2**20
"""Numbers of one statistic at most; more heads get fewer bins of positions."""
CLIPPED = 48
MOST, MISSING = 65534, 65535


@dataclass(frozen=True)
class View:
    """A model on a text.

    Attributes:
        statistics: name → layer × head × position, `alpha` among them; NaN where nothing was measured.
        n: passages that reach each position.
        uniform: α under uniform attention.
        pattern: maps layer × head × query × key in bins of `pattern_bin` positions, if there are any.
        tokens: of the passage whose text is shown.
        own: α of that passage alone, and then the maps are of it too; where it is missing maps and shades of tokens are means over all passages.
        span: where the trigger stands.
        exact: positions that are also shown by themselves where positions are binned.
        runs: how many runs this is the mean of.
    """

    statistics: Mapping[str, Float[np.ndarray, "layer head position"]]
    n: Int[np.ndarray, " position"]
    uniform: Float[np.ndarray, "layer position"]
    pattern: Float[np.ndarray, "layer head query key"] | None = None
    pattern_bin: int = 1
    tokens: Sequence[str] = ()
    own: Float[np.ndarray, "layer head position"] | None = None
    span: tuple[int, int] | None = None
    exact: Sequence[int] = field(default=())
    runs: int = 1

    @property
    def bin(self) -> int:
        """Positions in a bin."""
        layers, heads, length = self.statistics["alpha"].shape
        return -(-length // max(1, min(BINS, CELLS // (layers * heads))))

    def size(self) -> int:
        """Numbers that the page holds of it."""
        layers, heads, length = self.statistics["alpha"].shape
        curves = layers * heads * -(-length // self.bin) * (len(self.statistics) + (self.own is not None))
        return curves + (0 if self.pattern is None else self.pattern.size // 2)

    def payload(self) -> dict[str, Any]:
        """As JSON: arrays packed (see `packed`), positions in bins, the lower triangles of maps."""
        layers, heads, length = self.statistics["alpha"].shape
        size = self.bin
        shown: dict[str, Any] = {
            "layers": layers,
            "heads": heads,
            "length": length,
            "bin": size,
            "n": [
                [int(self.n[start : start + size].min()), int(self.n[start : start + size].max())]
                for start in range(0, length, size)
            ],
            "runs": self.runs,
            "span": list(self.span) if self.span else None,
            "uniform": packed(binned(self.uniform[:, None], size)),
            "statistics": {name: packed(binned(values, size)) for name, values in self.statistics.items()},
            "tokens": _joined(self.tokens, size),
            "text": len(self.tokens),
            "own": None if self.own is None else packed(binned(self.own, size)),
        }
        if size > 1 and self.exact:
            exact = list(self.exact)
            shown["exact"] = {"positions": exact, "n": [int(self.n[position]) for position in exact]}
            shown["exact"]["statistics"] = {
                name: packed(values[:, :, exact]) for name, values in self.statistics.items()
            }
        if self.pattern is not None:
            rows, keys = np.tril_indices(self.pattern.shape[-1])
            shown["pattern"] = {
                "side": self.pattern.shape[-1],
                "bin": self.pattern_bin,
                "cells": packed(self.pattern[:, :, rows, keys]),
            }
        return shown


def binned(
    values: Float[np.ndarray, "layer head position"], size: int
) -> Float[np.ndarray, "layer head bin"]:
    """Means over bins of positions, of those that were measured."""
    if size == 1:
        return values
    length = values.shape[-1]
    padded = np.pad(values, ((0, 0), (0, 0), (0, -length % size)), constant_values=np.nan).reshape(
        *values.shape[:2], -1, size
    )
    known = ~np.isnan(padded)
    counts = known.sum(-1)
    return np.where(counts, np.where(known, padded, 0).sum(-1) / np.maximum(counts, 1), np.nan)


def packed(values: Float[np.ndarray, ...]) -> dict[str, Any]:
    """Square roots as 16-bit shares of the largest, little-endian, in base64, so that small numbers keep their digits beside large ones; NaN is 65535.

    What is below 0, as rounding leaves it, is 0. A number v comes back within √(v · maximum) / 65 534, and a 2 · 10⁻¹⁰th of the maximum.
    """
    whole = np.clip(values, 0, None)
    scale = float(np.nanmax(whole)) if np.isfinite(whole).any() else 0.0
    shares = np.sqrt(np.nan_to_num(whole) / scale) if scale else np.zeros(whole.shape)
    coded = np.where(np.isnan(values), MISSING, np.round(shares * MOST)).astype("<u2")
    return {"shape": list(values.shape), "scale": scale, "data": base64.b64encode(coded.tobytes()).decode()}


def mean_of(views: Sequence[View]) -> View:
    """The mean over runs of several seeds; tokens and span are those of the first, n the fewest."""
    first = views[0]
    if len(views) == 1:
        return first
    shortest = min(len(view.n) for view in views)
    statistics = {
        name: np.mean([view.statistics[name][..., :shortest] for view in views], axis=0)
        for name in first.statistics
    }
    patterns = [
        view.pattern
        for view in views
        if view.pattern is not None
        and first.pattern is not None
        and view.pattern.shape == first.pattern.shape
    ]
    return replace(
        first,
        statistics=statistics,
        uniform=first.uniform[:, :shortest],
        n=np.min([view.n[:shortest] for view in views], axis=0),
        pattern=np.mean(patterns, axis=0) if len(patterns) == len(views) else None,
        runs=len(views),
    )


def _joined(tokens: Sequence[str], size: int) -> list[str]:
    """The text of each bin, clipped."""
    texts = ["".join(tokens[start : start + size]) for start in range(0, len(tokens), size)]
    return [text if len(text) <= CLIPPED else text[: CLIPPED - 1] + "…" for text in texts]
