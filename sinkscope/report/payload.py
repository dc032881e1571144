"""Compact JSON of statistics by layer, head and position, attention maps and tokens."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int

from sinkscope.plots.style import truncate
from sinkscope.sinks.conditions import CLEAN, TRIGGERED
from sinkscope.sinks.sink_map import find_ranked

CONDITIONS = (CLEAN, TRIGGERED)
"""The two conditions of every comparison: clean and triggered, or model A and model B."""
MAX_BINS = 256
"""Positions of longer passages are averaged into at most this many bins."""
MAX_VALUES = 2**20
"""Most values of one statistic in a view; with more heads, bins are wider."""
MAX_TOKEN_CHARACTERS = 48
MAX_CODE = 65534
NAN_CODE = 65535
Span = tuple[int, int]


@dataclass(frozen=True)
class View:
    """Statistics of a model on a text under one condition.

    Attributes:
        statistics: `alpha` and others by name; NaN where nothing was measured.
        n: number of passages that reach each position.
        uniform: α under uniform attention.
        pattern: attention maps in bins of `pattern_bin` positions.
        tokens: token texts of one passage.
        passage_alpha: α on that passage; the maps are then of this passage as well. Without it, maps and
            token shades are means over all passages.
        span: trigger position as [start, stop).
        ranked: positions that are compared by α; None: those of `find_ranked`.
        exact_positions: positions that are also listed individually where positions are binned.
        n_runs: number of runs that this view averages.
    """

    statistics: Mapping[str, Float[np.ndarray, "layer head position"]]
    n: Int[np.ndarray, " position"]
    uniform: Float[np.ndarray, "layer position"]
    pattern: Float[np.ndarray, "layer head query key"] | None = None
    pattern_bin: int = 1
    tokens: Sequence[str] = ()
    passage_alpha: Float[np.ndarray, "layer head position"] | None = None
    span: Span | None = None
    ranked: Bool[np.ndarray, " position"] | None = None
    exact_positions: Sequence[int] = ()
    n_runs: int = 1

    @property
    def bin_size(self) -> int:
        """Positions per bin."""
        layers, heads, length = self.statistics["alpha"].shape
        return -(-length // max(1, min(MAX_BINS, MAX_VALUES // (layers * heads))))

    @property
    def n_values(self) -> int:
        """Number of values that this view adds to the page."""
        layers, heads, length = self.statistics["alpha"].shape
        n_statistics = len(self.statistics) + (self.passage_alpha is not None)
        curves = layers * heads * -(-length // self.bin_size) * n_statistics
        return curves + (0 if self.pattern is None else self.pattern.size // 2)

    def payload(self) -> dict[str, Any]:
        """The view as JSON: encoded arrays, binned positions, lower triangles of maps."""
        layers, heads, length = self.statistics["alpha"].shape
        size, alpha, exact = self.bin_size, self.passage_alpha, list(self.exact_positions)
        starts = range(0, length, size)
        ranked = find_ranked(self.n) if self.ranked is None else self.ranked
        texts = ["".join(self.tokens[start : start + size]) for start in range(0, len(self.tokens), size)]
        payload: dict[str, Any] = {
            "layers": layers,
            "heads": heads,
            "length": length,
            "bin": size,
            "n": [[int(n.min()), int(n.max())] for n in (self.n[start : start + size] for start in starts)],
            "ranked": [bool(ranked[start : start + size].all()) for start in starts],
            "runs": self.n_runs,
            "span": list(self.span) if self.span else None,
            "uniform": encode_uint16(bin_means(self.uniform[:, None], size)),
            "statistics": {k: encode_uint16(bin_means(v, size)) for k, v in self.statistics.items()},
            "tokens": [truncate(text, MAX_TOKEN_CHARACTERS) for text in texts],
            "tokenCount": len(self.tokens),
            "passageAlpha": None if alpha is None else encode_uint16(bin_means(alpha, size)),
            "exact": None,
            "pattern": None,
        }
        if size > 1 and exact:
            statistics = {k: encode_uint16(v[:, :, exact]) for k, v in self.statistics.items()}
            payload["exact"] = {"positions": exact, "n": self.n[exact].tolist(), "statistics": statistics}
        if self.pattern is not None:
            side = self.pattern.shape[-1]
            queries, keys = np.tril_indices(side)
            cells = encode_uint16(self.pattern[:, :, queries, keys])
            payload["pattern"] = {"side": side, "bin": self.pattern_bin, "cells": cells}
        return payload


def build_views(
    attention: pd.DataFrame, tokens: pd.DataFrame, maps: xr.DataArray, spans: tuple[Span | None, Span | None]
) -> dict[str, View]:
    """The views of one model in two conditions.

    Args:
        attention: attention by layer, head and position in both conditions, as `sinks.compare` writes it.
        tokens: condition, position, text of one passage in both conditions.
        maps: condition × layer × head × query × key in bins of its attribute `bin`.
        spans: trigger positions in both conditions.
    """
    rows = attention.sort_values(["layer", "head", "position"])
    shape = tuple(rows[column].nunique() for column in ("layer", "head", "position"))
    arrays = {name: rows[name].to_numpy().reshape(shape) for name in rows.select_dtypes("number")}
    texts = [
        group.sort_values("position")["text"].tolist() for _, group in tokens.groupby("condition", sort=False)
    ]
    views = {}
    for index, (condition, suffix) in enumerate(zip(CONDITIONS, ("first", "second"), strict=True)):
        views[condition] = View(
            {name: arrays[f"{name}_{suffix}"] for name in ("alpha", "value_norm")},
            arrays["passages"][0, 0],
            arrays["uniform"][:, 0],
            maps.isel(condition=index).values,
            int(maps.attrs["bin"]),
            texts[index],
            span=spans[index],
        )
    return views


def average_views(views: Sequence[View]) -> View:
    """Mean over runs of several seeds; tokens and span are those of the first run, n is the smallest."""
    first = views[0]
    if len(views) == 1:
        return first
    length = min(len(view.n) for view in views)
    statistics = {
        name: np.mean([view.statistics[name][..., :length] for view in views], axis=0)
        for name in first.statistics
    }
    patterns = [view.pattern for view in views if view.pattern is not None]
    has_patterns = len(patterns) == len(views) and len({pattern.shape for pattern in patterns}) == 1
    return replace(
        first,
        statistics=statistics,
        uniform=first.uniform[:, :length],
        n=np.min([view.n[:length] for view in views], axis=0),
        pattern=np.mean(patterns, axis=0) if has_patterns else None,
        n_runs=len(views),
    )


def bin_means(
    values: Float[np.ndarray, "layer head position"], size: int
) -> Float[np.ndarray, "layer head bin"]:
    """Means over bins of positions, NaN left out."""
    if size == 1:
        return values
    padding = ((0, 0), (0, 0), (0, -values.shape[-1] % size))
    bins = np.pad(values, padding, constant_values=np.nan).reshape(*values.shape[:2], -1, size)
    return np.ma.masked_where(np.isnan(bins), bins).mean(-1).filled(np.nan)


def encode_uint16(values: Float[np.ndarray, ...]) -> dict[str, Any]:
    """Encode non-negative values as base64 of little-endian 16-bit integers; 65535 is NaN.

    The code is the square root of the value relative to the maximum, so that small values keep their digits.
    A value v is recovered within √(v · maximum) / 65 534 + 2 · 10⁻¹⁰ · maximum; negative values become 0.
    """
    clipped = np.clip(values, 0, None)
    scale = float(np.nanmax(clipped)) if np.isfinite(clipped).any() else 0.0
    ratios = np.sqrt(np.nan_to_num(clipped) / scale) if scale else np.zeros(clipped.shape)
    codes = np.where(np.isnan(values), NAN_CODE, np.round(ratios * MAX_CODE)).astype("<u2")
    return {"shape": list(values.shape), "scale": scale, "data": base64.b64encode(codes.tobytes()).decode()}
