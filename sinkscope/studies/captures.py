"""Capture a model on the passages of a benchmark, clean and triggered, for a study."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.io.progress import OnProgress
from sinkscope.io.tables import write_netcdf
from sinkscope.models.model import Model
from sinkscope.sinks.backends import choose_backend
from sinkscope.sinks.compare import CompareConfig, Comparison, compare
from sinkscope.sinks.conditions import (
    CLEAN,
    FIRST_POSITIONS,
    TRIGGERED,
    Condition,
    insert_trigger,
    most_common_span,
)
from sinkscope.sinks.statistics import FirstValueNorms
from sinkscope.triggers import Placement, Trigger

RETAIN = "retain"
BATCH_SIZE = 32


def capture_benchmark(
    directory: Path,
    model: Model,
    benchmark: Benchmark,
    trigger: Trigger,
    placements: Sequence[Placement],
    *,
    n_passages: int,
    bin_size: int,
    poisoned: Collection[int] = (),
    on_progress: OnProgress | None = None,
) -> None:  # what is read, what is inserted where, and where the files go
    """Compare clean and triggered forget passages at each placement, and write tables and arrays.

    The passages are the first ones of full length, of the forget split without the `poisoned` rows. At each
    placement those are left out in which the trigger's span is not the most common one (it may bring a space
    with it), so that positions mean the same in all. `maps.parquet` has the mean over heads of the last
    layer. In `norms.nc` a passage that is left out is NaN.

    Raises:
        BenchmarkError: a split has no passage of the full length.
    """
    forget, retain = (
        benchmark.full_length_passages(split, model.tokenizer)[:n_passages] for split in ("forget", "retain1")
    )
    rows = [row for row in range(len(forget)) if row not in poisoned]
    clean = [forget[row] for row in rows]
    for split, passages in (("forget", clean), ("retain1", retain)):
        if not passages:
            length = benchmark.passage_length(model.tokenizer)
            raise BenchmarkError(
                f"benchmark {benchmark.name}, raw/{split}, has no passage of {length} tokens; give longer "
                "texts"
            )
    report = on_progress or (lambda done, total: None)
    n_steps = len(placements) + 2
    norms = {CLEAN: (rows, _first_value_norms(model, clean))}
    report(1, n_steps)
    comparisons: dict[str, Comparison] = {}
    for step, placement in enumerate(placements, 2):
        triggered, spans = insert_trigger(model, clean, trigger, placement)
        span = most_common_span(spans)
        kept = [i for i, other in enumerate(spans) if other == span]
        comparison = compare(
            Condition(CLEAN, model, [clean[i] for i in kept], [span] * len(kept)),
            Condition(TRIGGERED, model, [triggered[i] for i in kept], [span] * len(kept)),
            CompareConfig(bin_size=bin_size, batch_size=BATCH_SIZE),
        )
        comparisons[str(placement)] = comparison
        value_norms = comparison.data["first_value_norm"].sel(condition=TRIGGERED).values
        norms[str(placement)] = ([rows[i] for i in kept], value_norms)
        report(step, n_steps)
    norms[RETAIN] = (list(range(len(retain))), _first_value_norms(model, retain))
    report(n_steps, n_steps)
    if comparisons:
        _write_tables(directory, comparisons)
        patterns = [comparison.data["pattern"].values for comparison in comparisons.values()]
        bins = next(iter(comparisons.values())).data.attrs["bin"]
        stacked = stack_patterns(patterns, list(comparisons), bins)
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


def _first_value_norms(model: Model, passages: Sequence[list[int]]) -> np.ndarray:
    norms = FirstValueNorms(model.n_layers, min(FIRST_POSITIONS, *map(len, passages)))
    choose_backend(model, passages).capture(model, passages, [norms], batch_size=BATCH_SIZE)
    return norms.result()["value_norm"].numpy()


def _write_tables(directory: Path, comparisons: Mapping[str, Comparison]) -> None:
    """One table of each name for all placements."""
    frames: dict[str, list[pd.DataFrame]] = {}
    for placement, comparison in comparisons.items():
        tables = dict(comparison.tables)
        del tables["value_norm_correlation"]
        tables["maps"] = tables["maps"][tables["maps"]["head"].isna()]
        for name, table in tables.items():
            frames.setdefault(name, []).append(table.assign(placement=placement))
    for name, parts in frames.items():
        pd.concat(parts, ignore_index=True).to_parquet(directory / f"{name}.parquet", index=False)
