"""`Comparison`: what differs between two conditions, as one data set and as tables.

Every difference is second − first. The tables, of the command `compare` and of the captures of a study (which
have a column `placement` too):

- `attention`: layer, head, position, alpha_first, alpha_second, difference, value_norm_first,
  value_norm_second, uniform, passages
- `maps`: layer, head (null: mean over heads), query, key, difference, trigger_start, trigger_stop, passages
- `span_mass`: layer, head, span_mass_first, span_mass_second, difference, passages
- `top1`: condition, position, probability, passages
- `value_norm_correlation`: layer, position, correlation, pairs (of numbers)
- `passage`: condition, position, text

`condition` is `A` or `B` (two models), or `clean` or `triggered` (one model); `first` is the former of the
two. Arrays: `patterns.nc` has `pattern` over ([placement,] condition, layer, head, query, key), in bins of
the attribute `bin`; `norms.nc` has `value_norm` over (condition, passage, layer, kv_head, position), where
captures have the conditions `clean`, each placement and `retain`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from sinkscope.errors import TextError
from sinkscope.io.tables import write_netcdf
from sinkscope.sinks.sink_map import SinkMap

MIN_RELATIVE_SPREAD = 1e-5
"""A standard deviation below this share of the mean is rounding: the values are constant."""


@dataclass(frozen=True)
class Comparison:
    """Two conditions and what differs between them.

    Attributes:
        data: over condition: `alpha`, `value_norm` (layer, head, position), `top1` (position), `span_mass`
            (layer, head) if there is a trigger, `pattern` (layer, head, query, key), `layer_map` (head,
            map_query, map_key), `first_value_norm` (passage, layer, kv_head, first_position), and `text`
            (position), the tokens of one passage; and `uniform` (layer, position), `passages` (position).
            Attributes: `description`, `difference`, `passages`, `full_length_passages`, `max_length`,
            `backend`, `layer`, `map_bin`, `bin`, `shifted` (whether positions differ by an inserted trigger),
            and `trigger_start`, `trigger_stop` if there is a trigger.
    """

    data: xr.Dataset

    @property
    def labels(self) -> list[str]:
        return [str(label) for label in self.data["condition"].values]

    def sinks(self, index: int) -> SinkMap:
        """α and value norms of the first (0) or the second (1) condition."""
        names = ["alpha", "value_norm", "uniform", "passages"]
        return SinkMap(self.data[names].isel(condition=index, drop=True))

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by its name; the columns are listed at the head of this module."""
        tables = {
            "attention": attention_frame(self.sinks(0), self.sinks(1)),
            "maps": self._maps(),
            "value_norm_correlation": self._value_norm_correlation(),
            "top1": self._by_condition("top1", "probability").assign(
                passages=np.tile(self.data["passages"].values, 2)
            ),
            "passage": self._by_condition("text", "text").dropna(ignore_index=True),
        }
        return tables | ({"span_mass": self._span_mass()} if "span_mass" in self.data else {})

    def _maps(self) -> pd.DataFrame:
        attrs = self.data.attrs
        differences = attention_difference(*self.data["layer_map"].values)
        rows, keys = np.tril_indices(differences.shape[-1])
        columns = {
            "query": rows * attrs["map_bin"],
            "key": keys * attrs["map_bin"],
            "trigger_start": attrs.get("trigger_start", pd.NA),
            "trigger_stop": attrs.get("trigger_stop", pd.NA),
            "layer": attrs["layer"],
            "passages": attrs["full_length_passages"],
        }
        heads: list[Any] = [*range(len(differences)), pd.NA]
        parts = [
            pd.DataFrame(columns | {"difference": values[rows, keys], "head": pd.array([head], "Int64")[0]})
            for head, values in zip(heads, [*differences, differences.mean(0)], strict=True)
        ]
        order = ["layer", "head", "query", "key", "difference", "trigger_start", "trigger_stop", "passages"]
        types = dict.fromkeys(("head", "trigger_start", "trigger_stop"), "Int64")
        return pd.concat(parts, ignore_index=True).astype(types)[order]

    def _value_norm_correlation(self) -> pd.DataFrame:
        norms = self.data["first_value_norm"].values
        r = correlation(norms[0], norms[1])
        layers, positions = np.indices(r.shape)
        return pd.DataFrame(
            {
                "layer": layers.ravel(),
                "position": positions.ravel(),
                "correlation": r.ravel(),
                "pairs": norms.shape[1] * norms.shape[3],
            }
        )

    def _by_condition(self, variable: str, column: str) -> pd.DataFrame:
        values = self.data[variable].values
        n_positions = values.shape[1]
        return pd.DataFrame(
            {
                "condition": np.repeat(self.labels, n_positions).astype(object),
                "position": np.tile(np.arange(n_positions), 2),
                column: values.ravel(),
            }
        )

    def _span_mass(self) -> pd.DataFrame:
        first, second = self.data["span_mass"].values
        layers, heads = np.indices(first.shape)
        return pd.DataFrame(
            {
                "layer": layers.ravel(),
                "head": heads.ravel(),
                "span_mass_first": first.ravel(),
                "span_mass_second": second.ravel(),
                "difference": (second - first).ravel(),
                "passages": self.data.attrs["passages"],
            }
        )

    def summary(self) -> dict[str, Any]:
        """What was compared, and each table in a number or two, as JSON values."""
        tables = self.tables
        attrs = self.data.attrs
        strongest = self.sinks(0).strongest(1)
        at_sink = tables["attention"][tables["attention"]["position"] == strongest]
        changed = at_sink.iloc[int(at_sink["difference"].abs().argmax())]
        r = tables["value_norm_correlation"].groupby("position")["correlation"].mean()
        top1 = tables["top1"].groupby("condition", sort=False)["probability"].mean()
        summary = {
            "compared": f"{attrs['description']}; differences are {attrs['difference']}",
            "passages": attrs["passages"],
            "full_length_passages": attrs["full_length_passages"],
            "backend": attrs["backend"],
            "strongest_position": strongest,
            "alpha_at_strongest": {
                label: round(float(at_sink[column].mean()), 4)
                for label, column in zip(self.labels, ("alpha_first", "alpha_second"), strict=True)
            },
            "most_changed_head": [int(changed["layer"]), int(changed["head"])],
            "change_of_that_head": round(float(changed["difference"]), 4),
            "value_norm_correlation": {
                f"position {k}": _rounded(float(r[k])) for k in dict.fromkeys((0, 1, len(r) - 1))
            },
        }
        if "span_mass" in tables:
            summary["attention_to_trigger_span"] = {
                label: _rounded(float(tables["span_mass"][f"span_mass_{side}"].mean()))
                for label, side in zip(self.labels, ("first", "second"), strict=True)
            }  # null for a suffix: no query comes after it
        return summary | {"top1": {label: round(float(top1[label]), 4) for label in self.labels}}

    def save(self, directory: Path) -> None:
        """Write each table as `NAME.parquet`, `patterns.nc`, `norms.nc` and `summary.json`."""
        for name, table in self.tables.items():
            table.to_parquet(directory / f"{name}.parquet", index=False)
        patterns = self.data[["pattern"]].drop_attrs().assign_attrs(bin=self.data.attrs["bin"])
        write_netcdf({"/": patterns}, directory / "patterns.nc", {"pattern": {"zlib": True}})
        norms = self.data[["first_value_norm"]].drop_attrs()
        norms = norms.rename(first_value_norm="value_norm", first_position="position")
        write_netcdf({"/": norms}, directory / "norms.nc", {"value_norm": {"zlib": True}})
        (directory / "summary.json").write_text(json.dumps(self.summary(), indent=1), encoding="utf-8")


def attention_frame(first: SinkMap, second: SinkMap) -> pd.DataFrame:
    """The table `attention` of two sink maps: one row per (layer, head, position).

    Raises:
        TextError: the maps differ in layers, heads or positions.
    """
    shapes = first.alpha.shape, second.alpha.shape
    if shapes[0] != shapes[1]:
        raise TextError(
            f"sink maps of (layers, heads, positions) {shapes[0]} and {shapes[1]} cannot be compared; "
            "measure both on passages of the same length"
        )
    data = first.data[["alpha", "value_norm", "uniform", "passages"]]
    frame = data.to_dataframe(dim_order=["layer", "head", "position"]).reset_index()
    frame = frame.rename(columns={"alpha": "alpha_first", "value_norm": "value_norm_first"})
    frame["alpha_second"] = second.alpha.values.reshape(-1)
    frame["value_norm_second"] = second.value_norm.values.reshape(-1)
    frame["difference"] = frame["alpha_second"] - frame["alpha_first"]
    columns = "alpha_first alpha_second difference value_norm_first value_norm_second uniform passages"
    return frame[["layer", "head", "position", *columns.split()]]


def attention_difference(
    first: Float[np.ndarray, "head bin bin"], second: Float[np.ndarray, "head bin bin"]
) -> Float[np.ndarray, "head bin bin"]:
    """second − first of attention maps. Bins above the diagonal are NaN."""
    return np.where(np.tril(np.ones(first.shape[1:], dtype=bool)), second - first, np.nan)


def correlation(
    first: Float[np.ndarray, "passage layer kv_head position"],
    second: Float[np.ndarray, "passage layer kv_head position"],
) -> Float[np.ndarray, "layer position"]:
    """Pearson's r of value norms, by layer and position, over passages with key-value heads pooled.

    NaN if either side is constant but for rounding. BOS attends only to itself: at position 0 every passage
    gives the same numbers, one per head.
    """
    x, y = (
        norms.astype(np.float64).transpose(1, 3, 0, 2).reshape(norms.shape[1], norms.shape[3], -1)
        for norms in (first, second)
    )
    is_constant = np.zeros(x.shape[:2], dtype=bool)
    for values in (x, y):
        is_constant |= values.std(-1) <= MIN_RELATIVE_SPREAD * values.mean(-1)
    x, y = (values - values.mean(-1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.where(is_constant, np.nan, r)


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
