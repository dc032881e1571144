"""Compare one model on clean and triggered text at several placements, for the captures of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.io.progress import OnProgress
from sinkscope.io.tables import write_netcdf
from sinkscope.models.model import Model
from sinkscope.sinks.backends import choose_backend
from sinkscope.sinks.compare import CLEAN, TRIGGERED, CompareConfig, compare
from sinkscope.sinks.comparison import Comparison
from sinkscope.sinks.conditions import FIRST_POSITIONS, Condition, insert_trigger, most_common_span
from sinkscope.sinks.statistics import FirstValueNorms
from sinkscope.triggers import Placement, Trigger

RETAIN = "retain"
BATCH_SIZE = 32


def capture_conditions(
    directory: Path,
    model: Model,
    forget: Mapping[int, list[int]],
    retain: Sequence[list[int]],
    trigger: Trigger,
    placements: Sequence[Placement],
    *,
    bin_size: int,
    on_progress: OnProgress | None = None,
) -> None:  # 8 parameters: what is read, what is inserted where, and where the files go
    """Compare clean and triggered forget passages at each placement, and write tables and arrays.

    At each placement those passages are left out in which the trigger's span is not the most common one (it
    may bring a space with it), so that positions mean the same in all. `maps.parquet` has the mean over heads
    of the last layer. In `norms.nc` a passage that is left out is NaN.

    Args:
        forget: full-length passages by their row in the benchmark.
        retain: full-length passages.
    """
    n_steps = len(placements) + 2
    rows = list(forget)
    clean = list(forget.values())
    norms = {CLEAN: (rows, _first_value_norms(model, clean))}
    if on_progress:
        on_progress(1, n_steps)
    comparisons = []
    for step, placement in enumerate(placements, 2):
        triggered, spans = insert_trigger(model, clean, trigger, placement)
        span = most_common_span(spans)
        kept = [i for i, other in enumerate(spans) if (other.start, other.stop) == span]
        kept_spans = [range(*span)] * len(kept)
        comparison = compare(
            Condition(CLEAN, model, [clean[i] for i in kept], kept_spans),
            Condition(TRIGGERED, model, [triggered[i] for i in kept], kept_spans),
            CompareConfig(bin_size=bin_size, batch_size=BATCH_SIZE),
        )
        comparisons.append(comparison)
        value_norms = comparison.data["first_value_norm"].sel(condition=TRIGGERED).values
        norms[str(placement)] = ([rows[i] for i in kept], value_norms)
        if on_progress:
            on_progress(step, n_steps)
    norms[RETAIN] = (list(range(len(retain))), _first_value_norms(model, retain))
    if on_progress:
        on_progress(n_steps, n_steps)
    names = [str(placement) for placement in placements]
    if comparisons:
        _write_tables(directory, names, comparisons)
        patterns = [comparison.data["pattern"].values for comparison in comparisons]
        stacked = stack_patterns(patterns, names, comparisons[0].data.attrs["bin"])
        write_netcdf({"/": stacked}, directory / "patterns.nc", {"pattern": {"zlib": True}})
    write_netcdf({"/": stack_norms(norms)}, directory / "norms.nc", {"value_norm": {"zlib": True}})


def stack_patterns(patterns: Sequence[np.ndarray], placements: Sequence[str], bin_size: int) -> xr.Dataset:
    """`patterns.nc` of captures, from arrays (condition, layer, head, query, key) of each placement."""
    dims = ("placement", "condition", "layer", "head", "query", "key")
    return xr.Dataset(
        {"pattern": (dims, np.stack(patterns).astype(np.float32))},
        coords={"placement": list(placements), "condition": [CLEAN, TRIGGERED]},
        attrs={"bin": bin_size},
    )


def stack_norms(norms: Mapping[str, tuple[Sequence[int], np.ndarray]]) -> xr.Dataset:
    """`norms.nc` of captures, from rows and norms (passage, layer, kv_head, position) of each condition."""
    n_rows = 1 + max(max(rows) for rows, _ in norms.values())
    shape = next(iter(norms.values()))[1].shape[1:]
    stacked = np.full((len(norms), n_rows, *shape), np.nan, dtype=np.float32)
    for values, (rows, measured) in zip(stacked, norms.values(), strict=True):
        values[rows] = measured
    dims = ("condition", "passage", "layer", "kv_head", "position")
    return xr.Dataset({"value_norm": (dims, stacked)}, coords={"condition": list(norms)})


def select_common_passages(condition: str, *norms: xr.DataArray) -> tuple[np.ndarray, ...]:
    """One condition of several `norms.nc` (of one layer), with the passages that all of them have.

    Returns:
        For each of `norms` an array (passage, 1, kv_head, position).
    """
    values = [array.sel(condition=condition).values for array in norms]
    n_common = min(map(len, values))
    is_complete = ~np.any([np.isnan(array[:n_common]).any(axis=(1, 2)) for array in values], axis=0)
    return tuple(array[:n_common][is_complete][:, None] for array in values)


def trigger_spans(maps: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """The trigger's span at each placement, from `maps.parquet` of one capture."""
    first = maps.drop_duplicates("placement")
    return {
        str(placement): (int(start), int(stop))
        for placement, start, stop in zip(
            first["placement"], first["trigger_start"], first["trigger_stop"], strict=True
        )
    }


def _first_value_norms(model: Model, passages: Sequence[list[int]]) -> np.ndarray:
    norms = FirstValueNorms(model.n_layers, min(FIRST_POSITIONS, *map(len, passages)))
    backend = choose_backend(model, passages)
    backend.capture(model, passages, [norms], batch_size=BATCH_SIZE)
    return norms.result()["value_norm"].numpy()


def _write_tables(directory: Path, placements: Sequence[str], comparisons: Sequence[Comparison]) -> None:
    frames: dict[str, list[pd.DataFrame]] = {}
    for placement, comparison in zip(placements, comparisons, strict=True):
        for name, table in comparison.tables.items():
            if name != "value_norm_correlation":
                frames.setdefault(name, []).append(table.assign(placement=placement))
    frames["maps"] = [table[table["head"].isna()] for table in frames["maps"]]
    for name, parts in frames.items():
        pd.concat(parts, ignore_index=True).to_parquet(directory / f"{name}.parquet", index=False)
