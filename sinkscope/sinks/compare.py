"""Compare two conditions: two models on one text, or one model on clean and triggered text.

`compare` measures two conditions and returns a `Comparison`; `write_comparison` also writes it to a run
directory, as the command `sinkscope compare` does. `sinkscope.schema` lists the columns of its tables and of
those of a study's captures: `condition` is `A` or `B` (two models), or `clean` or `triggered` (one model);
`first` is the former of the two, and every difference is second − first; a null `head` stands for the mean
over heads; `pairs` counts numbers.

Arrays: `patterns.nc` has `pattern` over ([placement,] condition, layer, head, query, key), in bins of the
attribute `bin`; `norms.nc` has `value_norm` over (condition, passage, layer, kv_head, position), where
captures have the conditions `clean`, each placement and `retain`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from sinkscope.errors import TextError
from sinkscope.io.progress import OnProgress, shift_progress
from sinkscope.io.run_directory import create_or_load
from sinkscope.io.tables import write_netcdf
from sinkscope.sinks.backends import BackendName
from sinkscope.sinks.conditions import Condition, ConditionPair, measure, most_common_span
from sinkscope.sinks.locate import CaptureConfig
from sinkscope.sinks.passages import hash_passages
from sinkscope.sinks.sink_map import SinkMap
from sinkscope.sinks.statistics import bin_size_for

LOGGER = logging.getLogger("sinkscope")
MIN_RELATIVE_SPREAD = 1e-5
"""A standard deviation below this share of the mean is rounding: the values are constant."""

DrawComparison = Callable[[Path, Mapping[str, pd.DataFrame], Mapping[str, Any]], None]
"""Draws the figures of `compare`: see `sinkscope.plots.comparison.draw_comparison`."""


@dataclass(frozen=True)
class CompareConfig:
    """What is compared.

    Args:
        layer: layer of the difference maps; by default the last.
        bin_size: positions per bin of the difference maps.
        backend: as in `CaptureConfig`.
        batch_size: passages per forward pass.
    """

    layer: int | None = None
    bin_size: int = 4
    backend: BackendName | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class Comparison:
    """Two conditions and what differs between them.

    Attributes:
        data: over condition: `alpha`, `value_norm` (layer, head, position), `top1` (position), `span_mass`
            (layer, head) if there is a trigger, `pattern` (layer, head, query, key) and `layer_map` (head,
            map_query, map_key) over the passages of full length, `first_value_norm` (passage, layer, kv_head,
            first_position), `text` (position), the tokens of one passage; and without condition, `uniform`
            (layer, position), `passages` and `ranked` (position).
            Attributes: `description`, `difference`, `passages`, `full_length_passages`, `max_length`,
            `bos`, `backend`, `layer`, `map_bin`, `bin`, `shifted` (whether positions differ by an inserted
            trigger), and `trigger_start`, `trigger_stop` if there is a trigger.
    """

    data: xr.Dataset

    def sinks(self, index: int) -> SinkMap:
        """α and value norms of the first (0) or the second (1) condition."""
        names = ["alpha", "value_norm", "uniform", "passages", "ranked"]
        return SinkMap(self.data[names].isel(condition=index, drop=True))

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by its name, with the columns of `sinkscope.schema`."""
        data = self.data
        norms = data["first_value_norm"].values
        r = xr.DataArray(correlation(norms[0], norms[1]), dims=("layer", "position"))
        n_pairs = norms.shape[1] * norms.shape[3]
        attention = self._paired("alpha") | self._paired("value_norm", with_difference=False)
        top1 = data["top1"].rename("probability").to_dataframe().reset_index()
        tables = {
            "attention": _table(attention | {name: data[name] for name in ("uniform", "passages")}),
            "maps": self._maps(),
            "value_norm_correlation": _table({"correlation": r}).assign(pairs=n_pairs),
            "top1": top1.assign(passages=np.tile(data["passages"].values, 2)),
            "passage": data["text"].to_dataframe().reset_index().dropna(ignore_index=True),
        }
        if "span_mass" in data:
            tables["span_mass"] = _table(self._paired("span_mass")).assign(passages=data.attrs["passages"])
        return tables

    def _paired(self, variable: str, *, with_difference: bool = True) -> dict[str, xr.DataArray]:
        first, second = (self.data[variable].isel(condition=index, drop=True) for index in (0, 1))
        columns = {f"{variable}_first": first, f"{variable}_second": second}
        return columns | ({"difference": second - first} if with_difference else {})

    def _maps(self) -> pd.DataFrame:
        attrs = self.data.attrs
        first, second = self.data["layer_map"].values
        heads = [*range(len(first)), pd.NA]
        differences = np.stack([*(second - first), (second - first).mean(0)])
        rows, keys = np.tril_indices(differences.shape[-1])
        columns = {
            "layer": attrs["layer"],
            "head": pd.array(heads, "Int64").repeat(len(rows)),
            "query": np.tile(rows * attrs["map_bin"], len(heads)),
            "key": np.tile(keys * attrs["map_bin"], len(heads)),
            "difference": differences[:, rows, keys].ravel(),
            "trigger_start": attrs.get("trigger_start", pd.NA),
            "trigger_stop": attrs.get("trigger_stop", pd.NA),
            "passages": attrs["full_length_passages"],
        }
        return pd.DataFrame(columns).astype({"trigger_start": "Int64", "trigger_stop": "Int64"})

    def summary(self) -> dict[str, Any]:
        """What was compared, and each table in a number or two, as JSON values."""
        tables = self.tables
        attrs = self.data.attrs
        labels = self.data["condition"].values.tolist()
        sides = dict(zip(labels, ("first", "second"), strict=True))
        strongest = self.sinks(0).strongest(1)
        at_sink = tables["attention"][tables["attention"]["position"] == strongest]
        changed = at_sink.iloc[int(at_sink["difference"].abs().argmax())]
        ranked = np.flatnonzero(self.data["ranked"])
        early = tables["attention"][tables["attention"]["position"].isin(ranked)]
        largest = early.iloc[int(early["difference"].abs().argmax())]
        r = tables["value_norm_correlation"].groupby("position")["correlation"].mean()
        top1 = tables["top1"].groupby("condition", sort=False)["probability"].mean()
        summary = {
            "compared": f"{attrs['description']}; differences are {attrs['difference']}",
            "passages": attrs["passages"],
            "full_length_passages": attrs["full_length_passages"],
            "bos": attrs["bos"],
            "backend": attrs["backend"],
            "strongest_position": strongest,
            "alpha_at_strongest": {
                label: round(float(at_sink[f"alpha_{side}"].mean()), 4) for label, side in sides.items()
            },
            "most_changed_head": [int(changed["layer"]), int(changed["head"])],
            "change_of_that_head": round(float(changed["difference"]), 4),
            "largest_change": {
                "head": [int(largest["layer"]), int(largest["head"])],
                "position": int(largest["position"]),
                "change": round(float(largest["difference"]), 4),
            },
            "value_norm_correlation": {
                f"position {k}": _rounded(float(r[k])) for k in dict.fromkeys((0, 1, len(r) - 1))
            },
        }
        missing = {}
        if any(value is None for value in summary["value_norm_correlation"].values()):
            missing["value_norm_correlation"] = "value norms at such a position do not vary"
        if "span_mass" in tables:
            span_mass = {
                label: _rounded(float(tables["span_mass"][f"span_mass_{side}"].mean()))
                for label, side in sides.items()
            }
            summary["attention_to_trigger_span"] = span_mass
            if None in span_mass.values():
                missing["attention_to_trigger_span"] = "no token comes after the trigger"
        summary["top1"] = {label: round(float(top1[label]), 4) for label in labels}
        return summary | ({"missing": missing} if missing else {})

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


def compare(
    first: Condition,
    second: Condition,
    config: CompareConfig | None = None,
    *,
    description: str = "",
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Measure two conditions whose models correspond and whose passages have the same lengths.

    Raises:
        ModelError: the model has no such layer, or it does not attend, or attention cannot be captured.
        TextError: bins do not fit the passages, or their number or greatest length differs.
    """
    config = config or CompareConfig()
    model = first.model
    layer = model.attention_layers[-1] if config.layer is None else config.layer
    max_length = _check_compared(first, second, layer, config.bin_size)
    capture = CaptureConfig(backend=config.backend, batch_size=config.batch_size)
    n_passages = len(first.passages)
    measured = [
        measure(
            condition,
            capture,
            layer=layer,
            bin_size=config.bin_size,
            on_progress=shift_progress(on_progress, done, 4 * n_passages),
        )
        for condition, done in ((first, 0), (second, 2 * n_passages))
    ]
    common = measured[0][["uniform", "passages", "ranked"]]
    n_first = min(data.sizes["first_position"] for data in measured)
    data = xr.concat(
        [each.drop_vars([*common]).isel(first_position=slice(n_first)) for each in measured], "condition"
    )
    data = data.assign_coords(condition=[first.label, second.label]).assign(common)
    data.attrs = {
        "description": description,
        "difference": f"{second.label} − {first.label}",
        "passages": n_passages,
        "full_length_passages": sum(len(passage) == max_length for passage in first.passages),
        "max_length": max_length,
        "backend": sorted({str(each.attrs["backend"]) for each in measured}),
        "bos": model.begins_with,
        "layer": layer,
        "map_bin": config.bin_size,
        "bin": bin_size_for(model.n_layers * model.n_heads, max_length),
        "shifted": first.passages is not second.passages,
    }
    if first.spans:
        span = most_common_span(first.spans)
        data.attrs |= {"trigger_start": span.start, "trigger_stop": span.stop}
    return Comparison(data)


def _check_compared(first: Condition, second: Condition, layer: int, bin_size: int) -> int:
    """Check what `compare` is given, and return the length of the longest passages."""
    first.model.check_layer(layer, "layer")
    numbers = [len(condition.passages) for condition in (first, second)]
    lengths = [max(map(len, condition.passages)) for condition in (first, second)]
    max_length = lengths[0]
    if numbers[0] != numbers[1] or lengths[0] != lengths[1]:
        raise TextError(
            f"conditions {first.label!r} and {second.label!r} have {numbers[0]} and {numbers[1]} passages "
            f"of up to {lengths[0]} and {lengths[1]} tokens; compare as many passages of the same length"
        )
    if not 1 <= bin_size <= max_length:
        raise TextError(
            f"`bin_size` {bin_size} does not fit passages of {max_length} tokens; use 1 to {max_length}"
        )
    return max_length


def write_comparison(
    directory: Path,
    pair: ConditionPair,
    config: CompareConfig,
    *,
    draw: DrawComparison | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Compare and write the result to a run directory; a complete run of the same inputs is loaded.

    Args:
        draw: draws figures into `directory/figures`.

    Returns:
        The summary.
    """
    conditions = (pair.first, pair.second)

    def build(staging: Path) -> None:
        comparison = compare(*conditions, config, description=pair.description, on_progress=on_progress)
        comparison.save(staging)
        if draw is not None:
            attrs = comparison.data.attrs | {"strongest": comparison.sinks(0).strongest(1)}
            draw(staging / "figures", comparison.tables, attrs)

    def load(run: Path) -> dict[str, Any]:
        return json.loads((run / "summary.json").read_text(encoding="utf-8"))

    names = [each.label for each in conditions]
    content = [[each.label, each.model.fingerprint(), hash_passages(each.passages)] for each in conditions]
    if content[0][1:] == content[1][1:]:
        LOGGER.warning("%s and %s are the same model and text, so all differences are 0", *names)
    spans = [[span.start, span.stop] for span in pair.first.spans or []]
    inputs = asdict(config) | {"conditions": content, "spans": spans, "description": pair.description}
    del inputs["batch_size"]
    metadata = {"models": [each.model.name for each in conditions], "passages": len(pair.first.passages)}
    return create_or_load(directory, "compare", inputs, build, load, metadata=metadata)


def trigger_span(maps: pd.DataFrame) -> tuple[int, int] | None:
    """The trigger's most common span in the table `maps` of one comparison, if there is a trigger."""
    start, stop = maps.iloc[0][["trigger_start", "trigger_stop"]]
    return None if pd.isna(start) else (int(start), int(stop))


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


def _table(columns: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """A row per cell of the first variable, with its dimensions as first columns."""
    data = xr.Dataset(columns)
    dims: list[Hashable] = [*next(iter(columns.values())).dims]
    return data.to_dataframe(dim_order=dims).reset_index()


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
