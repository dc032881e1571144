"""`SinkMap`: sink statistics over layers, heads and positions, with the uniform baseline and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from sinkscope.errors import PlacementError, TextError
from sinkscope.io.tables import load_netcdf, write_netcdf
from sinkscope.sinks.capture import Visibility, VisibleKeys
from sinkscope.sinks.statistics import Head

ROWS = 256
"""Rows of visible keys that are held at once."""
MIN_QUERIES = 8
"""Tokens are not shaded by α where it is a mean over fewer queries."""


def uniform_alpha(length: int, visible: VisibleKeys | None = None) -> Float[np.ndarray, " position"]:
    """α of each position under attention that is uniform over the keys that a query may attend to.

    Args:
        visible: which keys these are; None: all up to the query's own position.
    """
    return _uniform_alphas([length], visible)[length]


def _uniform_alphas(lengths: Iterable[int], visible: VisibleKeys | None) -> dict[int, np.ndarray]:
    """`uniform_alpha` of several lengths, from one pass over the rows of the longest."""
    alphas, start = {}, 0
    lengths = sorted(set(lengths))
    received = np.zeros(lengths[-1])
    for length in lengths:
        for first in range(start, length, ROWS):
            stop = min(first + ROWS, length)
            if visible is None:
                shares = 1 / np.arange(first + 1, stop + 1)
                received[:first] += shares.sum()
                received[first:stop] += shares[::-1].cumsum()[::-1]
            else:
                keys = visible(torch.arange(first, stop), stop)
                received[:stop] += (keys / keys.sum(1, keepdim=True, dtype=torch.float64)).sum(0).numpy()
        start = length
        alphas[length] = received[:length] / (length - np.arange(length))
    return alphas


def uniform_baseline(
    lengths: Iterable[int], visible: Visibility, n_layers: int, n_positions: Callable[[int], int]
) -> Float[np.ndarray, "layer position"]:
    """α under uniform attention, mean over passages of these lengths; NaN for layers that do not attend.

    Args:
        visible: by layer, the keys that queries may attend to.
        n_positions: at how many of its first positions a passage of some length counts.
    """
    counts = Counter(lengths)
    total = np.full((n_layers, max(counts)), np.nan)
    total[list(visible)] = 0
    n_passages = np.zeros(max(counts))
    by_keys = {keys: _uniform_alphas(counts, keys) for keys in set(visible.values())}
    for length, count in counts.items():
        n = n_positions(length)
        n_passages[:n] += count
        total[list(visible), :n] += [count * by_keys[keys][length][:n] for keys in visible.values()]
    return np.divide(total, n_passages, out=np.full(total.shape, np.nan), where=n_passages > 0)


def find_ranked(n_passages: Int[np.ndarray, " position"]) -> Bool[np.ndarray, " position"]:
    """Which positions are comparable (see `n_comparable`) in at least half of the passages that have them.

    Args:
        n_passages: how many passages have each position.
    """
    last = np.maximum(2 * np.arange(len(n_passages)) - 1, 0)  # k is comparable in at least 2k tokens
    long_enough = np.append(n_passages, 0)[np.minimum(last, len(n_passages))]
    return 2 * long_enough >= n_passages


@dataclass(frozen=True)
class SinkMap:
    """Sink statistics over layer, head and position.

    Attributes:
        data: `alpha`, `sink_rate`, `value_norm`, `weighted_norm` and the statistics of the configuration,
            with dims (layer, head, position); `uniform` (layer, position), α of uniform attention over the
            same passages, within the layer's window if it has one; `passages` (position), how many passages
            have the position, and `ranked` (position), see `find_ranked`. Layers that do not attend are NaN.
            If queries were sampled, `alpha_low` and `alpha_high` (a 95 % interval) replace `sink_rate`,
            `passages` counts those with enough queries at or after the position, and α is NaN where there are
            none. Attributes: `model`, `passages`, `epsilon`, `max_length`, `backend`; `query_fraction` and
            `seed` of a sample.
        tables: with details, `massive_activations`, `sink_tokens` and `token_kinds` (see their classes; the
            last two need every query), and `passage`: position, token, text of one passage;
            `experts` if the configuration has it (see `measure_experts`).
        passage: with details, `alpha`, `value_norm` and `entropy` of one passage by itself, and `pattern`
            (layer, head, query, key), its attention maps in bins of the attribute `bin`; `attention_scores`
            if the configuration has them (see `BinnedScores`).
    """

    data: xr.Dataset
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    passage: xr.Dataset | None = None

    @property
    def alpha(self) -> Float[xr.DataArray, "layer head position"]:
        return self.data["alpha"]

    @property
    def sink_rate(self) -> Float[xr.DataArray, "layer head position"]:
        if "sink_rate" not in self.data:
            raise TextError("a sample of queries has no sink rate; measure without `query_fraction`")
        return self.data["sink_rate"]

    @property
    def value_norm(self) -> Float[xr.DataArray, "layer head position"]:
        return self.data["value_norm"]

    @property
    def weighted_norm(self) -> Float[xr.DataArray, "layer head position"]:
        return self.data["weighted_norm"]

    @property
    def uniform(self) -> Float[xr.DataArray, "layer position"]:
        """α of each position under uniform causal attention: the baseline that a sink exceeds."""
        return self.data["uniform"]

    @property
    def attention_layers(self) -> list[int]:
        """The layers that attend, ascending; in the others everything is NaN."""
        return np.flatnonzero(self.value_norm.isel(head=0, position=0).notnull()).tolist()

    @property
    def is_sampled(self) -> bool:
        return "query_fraction" in self.data.attrs

    def ranked(self) -> pd.DataFrame:
        """Positions by α, mean over heads and the layers that attend, strongest first.

        Columns: rank, position, alpha, sink_rate (not of a sample), uniform. Only positions of `ranked` in
        `data`, which have enough queries at or after them.
        """
        columns = [name for name in ("alpha", "sink_rate") if name in self.data]
        attending = self.data.isel(layer=self.attention_layers)
        means = attending[columns].mean(["layer", "head"], skipna=False).to_dataframe()[columns]
        means["uniform"] = attending["uniform"].mean("layer").values
        ranked = (
            means[self.data["ranked"].values].dropna().sort_values("alpha", ascending=False, kind="stable")
        )
        ranked = ranked.reset_index()
        ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
        return ranked

    def strongest(self, rank: int) -> int:
        """The position of the `rank`-th strongest sink; ranks count from 1.

        Raises:
            PlacementError: there are fewer positions than that.
        """
        ranked = self.ranked()
        if not 1 <= rank <= len(ranked):
            raise PlacementError(
                f"sink rank {rank} does not exist in a passage with {len(ranked)} ranked positions; "
                "use a smaller rank"
            )
        return int(ranked["position"].iloc[rank - 1])

    def strongest_head(self) -> Head:
        """The head with the greatest α at the strongest position."""
        alpha = self.alpha.sel(position=self.strongest(1)).values
        layer, head = np.unravel_index(int(np.nanargmax(alpha)), alpha.shape)
        return int(layer), int(head)

    def head_of_greatest_entropy(self) -> Head:
        """The head whose attention on the passage of the details has the greatest entropy, mean over queries.

        Raises:
            TextError: there are no details.
        """
        if self.passage is None:
            raise TextError("the map has no details; measure with `details`")
        entropy = self.passage["entropy"].mean("position").values  # NaN in layers that do not attend
        layer, head = np.unravel_index(int(np.nanargmax(entropy)), entropy.shape)
        return int(layer), int(head)

    def heads_above(self, threshold: float, position: int = 0) -> float:
        """Share of heads whose α at `position` exceeds `threshold`."""
        attending = self.alpha.isel(layer=self.attention_layers)
        return float((attending.sel(position=position) > threshold).mean())

    def summary(self) -> dict[str, Any]:
        """The strongest positions and what the first position receives, as JSON values."""
        attrs = self.data.attrs
        ranked = self.ranked().head(3)
        first = self.data.sel(position=0)
        names = [name for name in ("bos", "backend") if name in attrs]  # older files have no `bos`
        summary: dict[str, Any] = {"passages": int(attrs["passages"])} | {name: attrs[name] for name in names}
        if len(self.attention_layers) < self.data.sizes["layer"]:
            summary["layers_that_attend"] = self.attention_layers
        if self.is_sampled:
            summary |= {"query_fraction": float(attrs["query_fraction"]), "seed": int(attrs["seed"])}
        else:
            summary["epsilon"] = float(attrs["epsilon"])
            summary["first_position_sink_rate"] = float(first["sink_rate"].mean())
        columns = [name for name in ("sink_rate", "alpha", "uniform") if name in ranked]
        return summary | {
            "strongest_positions": [int(position) for position in ranked["position"]],
            **{f"{name}_of_strongest": [round(float(x), 4) for x in ranked[name]] for name in columns},
            "first_position_alpha": float(first["alpha"].mean()),
            "first_position_alpha_uniform": float(self.uniform.mean("layer")[0]),
            "strongest_head": list(self.strongest_head()),
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per (layer, head, position): these, the statistics in the order of `data`, uniform."""
        data = self.data.drop_vars(["passages", "ranked"])
        return data.to_dataframe(dim_order=["layer", "head", "position"]).reset_index()

    def save(self, directory: Path) -> None:
        """Write `sinks.nc` (HDF5) and `sinks.parquet`; with details each of `tables`, and `passage.nc`."""
        write_netcdf({"/": self.data}, directory / "sinks.nc")
        for name, table in {"sinks": self.to_frame(), **self.tables}.items():
            table.to_parquet(directory / f"{name}.parquet", index=False)
        if self.passage is not None:
            write_netcdf({"/": self.passage}, directory / "passage.nc", {"pattern": {"zlib": True}})

    @classmethod
    def read(cls, directory: Path) -> SinkMap:
        """Read `data`, without the details."""
        return cls(load_netcdf(directory / "sinks.nc"))
