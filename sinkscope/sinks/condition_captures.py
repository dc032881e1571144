"""What heads do with and without the trigger, as tables: attention by position, difference maps, value norms, confidence."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.io.progress import OnProgress
from sinkscope.io.tables import write_netcdf
from sinkscope.models.model import Model
from sinkscope.sinks.compare import (
    MAP_COLUMNS,
    Condition,
    ConditionStats,
    FullLengthPattern,
    attention_difference,
    attention_frame,
    heads_data,
    insert_trigger_in_all,
    map_frame,
    measure,
    most_common_span,
)
from sinkscope.sinks.maps import bin_for
from sinkscope.sinks.statistics import Statistic
from sinkscope.text import token_texts
from sinkscope.triggers import Placement, Trigger

CLEAN, TRIGGERED, RETAIN = "clean", "triggered", "retain"


def capture_conditions(
    directory: Path,
    model: Model,
    benchmark: Benchmark,
    trigger: Trigger,
    placements: Sequence[Placement],
    *,
    passages: int,
    bin_size: int,
    poisoned: Collection[int] = (),
    on_progress: OnProgress | None = None,
) -> None:
    """Read the first whole forget passages clean and with the trigger at each placement, and the first whole retain passages; write what was seen.

    Forget passages in `poisoned` (row numbers) are left out, and at each placement those in which the trigger stands elsewhere than in most (it may bring a
    space with it), so that positions mean the same in all.

    `attention.parquet`: see `attention_frame`, first clean, second triggered; placement.
    `maps.parquet`: mean attention change by the trigger in the last layer, heads averaged, in bins of tokens (query, key, difference, trigger span), placement.
    `span_mass.parquet`: attention of later queries to the trigger's span, and to the same positions of the clean passage (placement, layer, head, span_mass_first,
    span_mass_second). `top1.parquet`: condition (`clean` or `triggered`), position, probability, placement. `norms.nc`: `value_norm` over condition (`clean`,
    placements, `retain`), passage (its row), layer, kv_head, position (the first ones), NaN where a passage was left out. `patterns.nc`: `pattern`, the mean
    map of every head over placement, condition (`clean`, `triggered`), layer, head, query, key, in bins of its attribute `bin`. `passage.parquet`: the tokens of
    the first of these passages as text (placement, condition, position, text). The tables have n in `passages`.

    Raises:
        BenchmarkError: a split has no passage of the full length.
    """
    chosen = {
        split: benchmark.full_length_passages(split, model.tokenizer)[:passages]
        for split in ("forget", "retain1")
    }
    kept = [row for row in range(len(chosen["forget"])) if row not in set(poisoned)]
    if empty := [split for split, each in {"forget": kept, "retain1": chosen["retain1"]}.items() if not each]:
        raise BenchmarkError(
            f"benchmark {benchmark.name}, raw/{empty[0]}, has no passage of {benchmark.lengths.passage} tokens; give longer texts"
        )
    layer, forget = model.n_layers - 1, [chosen["forget"][row] for row in kept]
    done, steps = itertools.count(1), 2 * len(placements) + 2
    tables: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ("attention", "maps", "span_mass", "top1", "passage")
    }
    norms: dict[str, tuple[list[int], np.ndarray]] = {}
    patterns: list[list[np.ndarray]] = []
    coarse = bin_for(model.n_layers * model.n_heads, benchmark.lengths.passage)

    def see(
        passages: list[list[int]], spans: list[range] | None, statistics: Sequence[Statistic] = ()
    ) -> ConditionStats:
        seen = measure(
            Condition("", model, passages, spans),
            layer=layer,
            bin_size=bin_size,
            batch_size=32,
            statistics=statistics,
        )
        if on_progress:
            on_progress(next(done), steps)
        return seen

    norms[CLEAN] = (kept, see(forget, None).norms)
    for placement in placements:
        with_trigger, spans = insert_trigger_in_all(model, forget, trigger, placement)
        name, span = str(placement), most_common_span(spans)
        alike = [i for i, each in enumerate(spans) if (each.start, each.stop) == span]
        states = {
            state: [texts[i] for i in alike] for state, texts in ((CLEAN, forget), (TRIGGERED, with_trigger))
        }
        heads = [
            FullLengthPattern.of(model, texts, range(model.n_layers), coarse) for texts in states.values()
        ]
        before, after = (
            see(texts, [range(*span)] * len(alike), [each])
            for texts, each in zip(states.values(), heads, strict=True)
        )
        patterns.append([each.result()["pattern"].numpy() for each in heads])
        for state, texts in states.items():
            words = token_texts(model, texts[0])
            tables["passage"].append(
                pd.DataFrame(
                    {"placement": name, "condition": state, "position": range(len(words)), "text": words}
                )
            )
        norms[name] = ([kept[i] for i in alike], after.norms)
        count = len(alike)
        tables["attention"].append(attention_frame(before.sinks, after.sinks).assign(placement=name))
        tables["maps"].append(
            map_frame(attention_difference(before.pattern, after.pattern).mean(0), bin_size, span)
            .assign(placement=name, passages=count, layer=layer, head=pd.array([pd.NA], dtype="Int64")[0])[
                [*MAP_COLUMNS, "placement"]
            ]
            .astype({"head": "Int64"})
        )
        tables["span_mass"].append(_span_mass(before, after).assign(placement=name, passages=count))
        tables["top1"] += [
            _top1(condition, seen, count).assign(placement=name)
            for condition, seen in ((CLEAN, before), (TRIGGERED, after))
        ]
    norms[RETAIN] = (list(range(len(chosen["retain1"]))), see(chosen["retain1"], None).norms)
    for name, frames in tables.items():
        if frames:
            pd.concat(frames, ignore_index=True).to_parquet(directory / f"{name}.parquet", index=False)
    if patterns:
        maps = patterns_of(patterns, [str(placement) for placement in placements], model.n_heads, coarse)
        write_netcdf({"/": maps}, directory / "patterns.nc", {"pattern": {"zlib": True}})
    write_netcdf({"/": norms_of(norms)}, directory / "norms.nc", {"value_norm": {"zlib": True}})


def patterns_of(
    patterns: list[list[np.ndarray]], placements: Sequence[str], heads: int, bin_size: int
) -> xr.Dataset:
    """Maps over placement, condition, layer, head, query and key, from the maps of all heads in each."""
    whole = xr.concat(
        [heads_data(states, heads, bin_size, (CLEAN, TRIGGERED)) for states in patterns], "placement"
    )
    return whole.assign_coords(placement=list(placements))


def norms_of(norms: dict[str, tuple[list[int], np.ndarray]]) -> xr.Dataset:
    """Value norms over condition, passage, layer, kv_head and position, from the rows that each condition has; NaN for the others."""
    rows = 1 + max(max(each) for each, _ in norms.values())
    whole = np.full((len(norms), rows, *next(iter(norms.values()))[1].shape[1:]), np.nan, dtype=np.float32)
    for filled, (each, values) in zip(whole, norms.values(), strict=True):
        filled[each] = values
    return xr.Dataset(
        {"value_norm": (("condition", "passage", "layer", "kv_head", "position"), whole)},
        coords={"condition": list(norms)},
    )


def passages_of(condition: str, *norms: xr.DataArray) -> tuple[np.ndarray, ...]:
    """passage × layer × kv_head × position of one condition for each of `norms` (of one layer), with those passages that all of them have."""
    values = [each.sel(condition=condition).values for each in norms]
    common = min(map(len, values))
    kept = ~np.any([np.isnan(each[:common]).any(axis=(1, 2)) for each in values], axis=0)
    return tuple(each[:common][kept][:, None] for each in values)


def spans_of(maps: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Where the trigger stood at each placement, from `maps.parquet` of one capture."""
    first = maps.drop_duplicates("placement").set_index("placement")
    return {
        str(place): (int(first["trigger_start"][place]), int(first["trigger_stop"][place]))
        for place in first.index
    }


def _span_mass(before: ConditionStats, after: ConditionStats) -> pd.DataFrame:
    assert before.span_mass is not None and after.span_mass is not None
    layers, heads = np.indices(before.span_mass.shape)
    return pd.DataFrame(
        {
            "layer": layers.ravel(),
            "head": heads.ravel(),
            "span_mass_first": before.span_mass.ravel(),
            "span_mass_second": after.span_mass.ravel(),
            "difference": (after.span_mass - before.span_mass).ravel(),
        }
    )


def _top1(condition: str, seen: ConditionStats, passages: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": condition,
            "position": range(len(seen.top1)),
            "probability": seen.top1,
            "passages": passages,
        }
    )
