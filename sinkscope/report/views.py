"""What the page shows of one model on one kind of text: numbers by layer, head and position, maps of heads, and the tokens of one passage; packed small."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

BINS = 256
"""Positions of longer passages are shown in this many bins, or a few less."""
CELLS = 2**20
"""Numbers of one statistic at most; more heads get fewer bins of positions."""
CLIPPED = 48
MISSING = 65535


@dataclass(frozen=True)
class View:
    """A model on a text.

    Attributes:
        statistics: name → layer × head × position; NaN where nothing was measured.
        pattern: maps layer × head × query × key in bins of `pattern_bin` positions, if there are any.
        tokens: of the passage whose map or text is shown.
        own: α of that passage alone; where it is missing its tokens are shaded by α over all passages.
        span: where the trigger stands.
        n: passages.
    """

    statistics: Mapping[str, Float[np.ndarray, "layer head position"]]
    n: int
    pattern: Float[np.ndarray, "layer head query key"] | None = None
    pattern_bin: int = 1
    tokens: Sequence[str] = ()
    own: Float[np.ndarray, "layer head position"] | None = None
    span: tuple[int, int] | None = None
    exact: Sequence[int] = field(default=())
    """Positions that are also shown by themselves where positions are binned."""

    def payload(self) -> dict[str, Any]:
        """As JSON: arrays packed (see `packed`), positions in bins of `bin`, the lower triangles of maps."""
        layers, heads, length = next(iter(self.statistics.values())).shape
        size = -(-length // max(1, min(BINS, CELLS // (layers * heads))))
        shown: dict[str, Any] = {
            "layers": layers,
            "heads": heads,
            "length": length,
            "bin": size,
            "n": self.n,
            "span": list(self.span) if self.span else None,
            "statistics": {name: packed(binned(values, size)) for name, values in self.statistics.items()},
            "tokens": _joined(self.tokens, size),
            "own": None if self.own is None else packed(binned(self.own, size)),
        }
        if size > 1:
            shown["exact"] = {"positions": list(self.exact), "alpha": packed(self.statistics["alpha"][:, :, list(self.exact)])}
        if self.pattern is not None:
            rows, keys = np.tril_indices(self.pattern.shape[-1])
            shown["pattern"] = {"side": self.pattern.shape[-1], "bin": self.pattern_bin, "cells": packed(self.pattern[:, :, rows, keys])}
        return shown


def binned(values: Float[np.ndarray, "layer head position"], size: int) -> Float[np.ndarray, "layer head bin"]:
    """Means over bins of positions, of those that were measured."""
    if size == 1:
        return values
    length = values.shape[-1]
    padded = np.pad(values, ((0, 0), (0, 0), (0, -length % size)), constant_values=np.nan).reshape(*values.shape[:2], -1, size)
    known = ~np.isnan(padded)
    counts = known.sum(-1)
    return np.where(counts, np.where(known, padded, 0).sum(-1) / np.maximum(counts, 1), np.nan)


def packed(values: Float[np.ndarray, ...]) -> dict[str, Any]:
    """Numbers that are not negative as 16-bit shares of their maximum, little-endian, in base64; NaN is 65535. The error is below 1 / 131 000 of it."""
    most = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    scale = most or 1.0
    whole = np.where(np.isnan(values), MISSING, np.round(np.nan_to_num(values) / scale * (MISSING - 1))).astype("<u2")
    return {"shape": list(values.shape), "scale": scale, "data": base64.b64encode(whole.tobytes()).decode()}


def _joined(tokens: Sequence[str], size: int) -> list[str]:
    """The text of each bin, clipped."""
    if size == 1:
        return [token if len(token) <= CLIPPED else token[: CLIPPED - 1] + "…" for token in tokens]
    bins = ["".join(tokens[start : start + size]) for start in range(0, len(tokens), size)]
    return [text if len(text) <= CLIPPED else text[: CLIPPED - 1] + "…" for text in bins]


def mean_of(views: Sequence[View]) -> View:
    """The mean over runs of several seeds; tokens and span are those of the first, n the fewest."""
    first = views[0]
    statistics = {name: _mean([view.statistics[name] for view in views if name in view.statistics]) for name in first.statistics}
    patterns = [view.pattern for view in views if view.pattern is not None]
    return View(
        statistics,
        min(view.n for view in views),
        _mean(patterns) if patterns else None,
        first.pattern_bin,
        first.tokens,
        None,
        first.span,
        first.exact,
    )


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    shortest = min(each.shape[-1] for each in arrays)
    return np.mean([each[..., :shortest] for each in arrays], axis=0)
