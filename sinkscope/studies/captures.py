"""What heads do with and without the trigger, as tables: attention by position, difference maps, value norms, confidence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.compare import Condition, Measured, attention_frame, change, map_frame, measure, triggered, usual
from sinkscope.errors import BenchmarkError
from sinkscope.models import Model
from sinkscope.progress import Report
from sinkscope.triggers import Placement, Trigger

CLEAN, RETAIN = "clean", "retain"


def capture_to(
    directory: Path,
    model: Model,
    benchmark: Benchmark,
    trigger: Trigger,
    placements: Sequence[Placement],
    *,
    passages: int,
    bin_size: int,
    report: Report | None = None,
) -> None:
    """Read the first whole forget passages clean and with the trigger at each placement, and the first whole retain passages; write what was seen.

    `attention.parquet`: α by layer, head, position, clean (`alpha_first`) and triggered (`alpha_second`), their difference, placement.
    `maps.parquet`: mean attention change by the trigger in the last layer, heads averaged, in bins of tokens (query, key, difference, trigger span), placement.
    `span_mass.parquet`: attention of later queries to the trigger's span, and to the same positions of the clean passage (placement, layer, head, clean,
    triggered). `top1.parquet`: condition (`clean` or a placement), position, probability. `norms.nc`: `value_norm` over condition (`clean`, placements,
    `retain`), passage, layer, kv_head, position (the first ones). Every table has n in the column or attribute `passages`.

    Raises:
        BenchmarkError: a split has no passage of the full length.
    """
    chosen = {split: benchmark.whole_passages(split, model.tokenizer)[:passages] for split in ("forget", "retain1")}
    if empty := [split for split, each in chosen.items() if not each]:
        raise BenchmarkError(f"benchmark {benchmark.name}, raw/{empty[0]}, has no passage of {benchmark.lengths.passage} tokens; give longer texts")
    layer, forget = model.n_layers - 1, chosen["forget"]
    done, steps = itertools.count(1), 2 * len(placements) + 1
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("attention", "maps", "span_mass", "top1")}
    norms: dict[str, np.ndarray] = {}

    def see(passages: list[list[int]], spans: list[range] | None) -> Measured:
        seen = measure(Condition("", model, passages, spans), layer=layer, bin_size=bin_size, batch_size=32)
        if report:
            report(next(done), steps)
        return seen

    plain: Measured | None = None
    for placement in placements:
        with_trigger, spans = triggered(model, forget, trigger, placement)
        before, after = see(forget, spans), see(with_trigger, spans)
        plain, name, span = before, str(placement), usual(spans)
        norms[name] = after.norms
        count = len(forget)
        tables["attention"].append(attention_frame(before.sinks, after.sinks).assign(placement=name))
        tables["maps"].append(map_frame(change(before.pattern, after.pattern).mean(0), bin_size, span).assign(placement=name, passages=count))
        tables["span_mass"].append(_span_mass(before, after).assign(placement=name, passages=count))
        tables["top1"].append(_top1(name, after, len(forget)))
    plain = plain or see(forget, None)
    tables["top1"].append(_top1(CLEAN, plain, len(forget)))
    norms = {CLEAN: plain.norms, **norms, RETAIN: see(chosen["retain1"], None).norms}
    for name, frames in tables.items():
        if frames:
            pd.concat(frames, ignore_index=True).to_parquet(directory / f"{name}.parquet", index=False)
    norms_of(norms).to_netcdf(directory / "norms.nc", engine="h5netcdf", encoding={"value_norm": {"zlib": True}})


def norms_of(norms: dict[str, np.ndarray]) -> xr.Dataset:
    """Value norms over condition, passage, layer, kv_head and position; NaN where a condition has fewer passages."""
    most = max(len(each) for each in norms.values())
    padded = [np.pad(each, [(0, most - len(each)), (0, 0), (0, 0), (0, 0)], constant_values=np.nan) for each in norms.values()]
    dims = ("condition", "passage", "layer", "kv_head", "position")
    return xr.Dataset({"value_norm": (dims, np.stack(padded).astype(np.float32))}, coords={"condition": list(norms)})


def _span_mass(before: Measured, after: Measured) -> pd.DataFrame:
    assert before.span_mass is not None and after.span_mass is not None
    layers, heads = np.indices(before.span_mass.shape)
    return pd.DataFrame(
        {"layer": layers.ravel(), "head": heads.ravel(), "clean": before.span_mass.ravel(), "triggered": after.span_mass.ravel()},
    )


def _top1(condition: str, seen: Measured, passages: int) -> pd.DataFrame:
    return pd.DataFrame({"condition": condition, "position": range(len(seen.top1)), "probability": seen.top1, "passages": passages})
