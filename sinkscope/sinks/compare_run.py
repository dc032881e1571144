"""From two models, or a model and a trigger, to a directory of tables and pictures: what `sinkscope compare` does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sinkscope.errors import ModelError, TextError
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import config_hash, create_run, is_complete
from sinkscope.io.tables import write_netcdf
from sinkscope.models.model import Model
from sinkscope.plots import comparison as pictures
from sinkscope.plots.style import save_figure
from sinkscope.sinks.backends import Backend
from sinkscope.sinks.compare import (
    MAP_COLUMNS,
    Condition,
    ConditionStats,
    FullLengthPattern,
    attention_difference,
    attention_frame,
    check_comparable,
    correlation,
    heads_data,
    insert_trigger_in_all,
    map_frame,
    measure,
    most_common_span,
)
from sinkscope.sinks.maps import bin_for
from sinkscope.text import check_readable, token_texts
from sinkscope.triggers import Placement, Trigger


@dataclass(frozen=True)
class Pair:
    """Two conditions, what sets them apart in words, the trigger's most frequent span, and how long a whole passage is."""

    first: Condition
    second: Condition
    about: str
    span: tuple[int, int] | None
    length: int

    @property
    def difference(self) -> str:
        return f"{self.second.label} − {self.first.label}"


def pair(
    model: Model,
    other: Model | None,
    passages: Sequence[list[int]],
    max_length: int,
    trigger: tuple[Trigger, Placement] | None,
    *,
    bin_size: int,
    layer: int,
) -> Pair:
    """What is compared: with `other`, two models (A, B) on one text, which has the trigger in it if one is given; without, a model on clean and triggered text.

    Raises:
        ModelError: neither a second model nor a trigger, two models whose heads or tokens do not correspond, or no such layer.
        TextError: no passage has all of `max_length` tokens, the second model cannot read so many, or bins do not fit.
        PlacementError: the trigger does not fit a passage.
    """
    if other is None and trigger is None:
        raise ModelError(
            f"model {model.name!r} has nothing to be compared with; give a second model or a --trigger"
        )
    if not 0 <= layer < model.n_layers:
        raise ModelError(
            f"layer {layer} does not exist in model {model.name!r}; use 0 to {model.n_layers - 1}"
        )
    if not 1 <= bin_size <= max_length:
        raise TextError(
            f"--bin {bin_size} does not fit passages of {max_length} tokens; use 1 to {max_length}"
        )
    longest = max(map(len, passages))
    if longest < max_length:
        raise TextError(
            f"no passage has all of --max-length {max_length} tokens, as maps need; the longest has {longest}: lower it to that or give more text"
        )
    if other is not None:
        check_comparable(model, other)
        check_readable(other, max_length)
    passages = list(passages)
    placed, spans = insert_trigger_in_all(model, passages, *trigger) if trigger else (passages, None)
    span = most_common_span(spans) if spans else None
    words = f"trigger “{trigger[0].text}” as {trigger[1]}" if trigger else ""
    if other is None:
        return Pair(
            Condition("clean", model, passages, spans),
            Condition("triggered", model, placed, spans),
            f"{_short(model)}, {words}",
            span,
            max_length,
        )
    about = f"A = {_short(model)}, B = {_short(other)}" + (f", both with {words}" if trigger else "")
    return Pair(
        Condition("A", model, placed, spans), Condition("B", other, placed, spans), about, span, max_length
    )


def compare_in_text(
    compared: Pair,
    out: Path,
    *,
    layer: int,
    bin_size: int,
    source: Backend | None = None,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Measure both conditions, write `attention.parquet`, `maps.parquet`, `value_norm_correlation.parquet`, `top1.parquet`, with a trigger `span_mass.parquet`,
    `patterns.nc` (the mean maps of every head over condition, layer, head, query, key, in bins of its attribute `bin`), `passage.parquet` (condition, position, text
    of one passage), `summary.json` and `figures/` to `out`, return the summary.

    A finished run of the same models, passages and settings is left as it is.
    """
    conditions = (compared.first, compared.second)
    spans = [[span.start, span.stop] for span in compared.first.spans or []]
    content = [
        [condition.label, condition.model.fingerprint(), condition.passages, spans]
        for condition in conditions
    ]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    name = config_hash(
        "compare",
        conditions=digest,
        layer=layer,
        bin=bin_size,
        about=compared.about,
        span=compared.span,
        source=source,
    )
    if not is_complete(out, name):
        with create_run(
            out,
            name,
            kind="compare",
            models=[condition.model.name for condition in conditions],
            passages=len(compared.first.passages),
        ) as aside:
            model, heads, measured = compared.first.model, [], []
            coarse = bin_for(model.n_layers * model.n_heads, compared.length)
            for index, condition in enumerate(conditions):
                part = (
                    None
                    if on_progress is None
                    else lambda done, total, before=index: on_progress(done + before * total, 2 * total)
                )
                heads.append(
                    FullLengthPattern.of(condition.model, condition.passages, range(model.n_layers), coarse)
                )
                options: dict[str, Any] = {
                    "source": source,
                    "batch_size": batch_size,
                    "statistics": heads[-1:],
                    "on_progress": part,
                }
                measured.append(measure(condition, layer=layer, bin_size=bin_size, **options))
            first, second = measured
            patterns = heads_data(
                [each.result()["pattern"].numpy() for each in heads],
                model.n_heads,
                coarse,
                [condition.label for condition in conditions],
            )
            write_netcdf({"/": patterns}, aside / "patterns.nc", {"pattern": {"zlib": True}})
            _words(compared).to_parquet(aside / "passage.parquet", index=False)
            tables = _tables(compared, first, second, layer=layer, bin_size=bin_size)
            for title, table in tables.items():
                table.to_parquet(aside / f"{title}.parquet", index=False)
            summary = summarize(compared, first, second, tables)
            (aside / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
            draw(compared, tables, summary, layer, bin_size, aside / "figures")
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def _words(compared: Pair) -> pd.DataFrame:
    """One whole passage in both conditions, with the trigger where it stands most often."""
    spans = compared.first.spans or [range(0)] * len(compared.first.passages)
    whole = [i for i, passage in enumerate(compared.first.passages) if len(passage) == compared.length]
    chosen = next((i for i in whole if compared.span in (None, (spans[i].start, spans[i].stop))), whole[0])
    texts = [
        (condition.label, token_texts(condition.model, condition.passages[chosen]))
        for condition in (compared.first, compared.second)
    ]
    return pd.concat(
        [
            pd.DataFrame({"condition": label, "position": range(len(words)), "text": words})
            for label, words in texts
        ],
        ignore_index=True,
    )


def _tables(
    compared: Pair, first: ConditionStats, second: ConditionStats, *, layer: int, bin_size: int
) -> dict[str, pd.DataFrame]:
    """`attention`: see `attention_frame`. `maps`: layer, head (null is the mean over heads), then as `map_frame`. `value_norm_correlation`: layer, position,
    correlation, pairs (of numbers). `top1`: condition, position, probability, passages. `span_mass`, with a trigger: layer, head, span_mass_first, span_mass_second,
    difference, passages: what queries behind the trigger's place give to it (see `SpanMass`)."""
    maps = attention_difference(first.pattern, second.pattern)
    heads = [(head, values) for head, values in enumerate(maps)] + [(pd.NA, maps.mean(0))]
    cells = pd.concat(
        [
            map_frame(values, bin_size, compared.span).assign(head=pd.array([head], dtype="Int64")[0])
            for head, values in heads
        ]
    )
    whole = sum(len(passage) == compared.length for passage in compared.first.passages)
    cells = cells.astype({"head": "Int64"}).assign(layer=layer, passages=whole)
    r = correlation(first.norms, second.norms)
    layers, positions = np.indices(r.shape)
    pairs = first.norms.shape[0] * first.norms.shape[2]
    counts = first.sinks.data["passages"].values
    top1 = [
        pd.DataFrame(
            {
                "condition": label,
                "position": np.arange(len(counts)),
                "probability": measured.top1,
                "passages": counts,
            }
        )
        for label, measured in ((compared.first.label, first), (compared.second.label, second))
    ]
    on_span = {}
    if first.span_mass is not None and second.span_mass is not None:
        layer_of, head_of = (index.ravel() for index in np.indices(first.span_mass.shape))
        mass = pd.DataFrame(
            {
                "layer": layer_of,
                "head": head_of,
                "span_mass_first": first.span_mass.ravel(),
                "span_mass_second": second.span_mass.ravel(),
            }
        )
        on_span["span_mass"] = mass.assign(
            difference=mass["span_mass_second"] - mass["span_mass_first"],
            passages=len(compared.first.passages),
        )
    return on_span | {
        "attention": attention_frame(first.sinks, second.sinks),
        "maps": cells[list(MAP_COLUMNS)],
        "value_norm_correlation": pd.DataFrame(
            {"layer": layers.ravel(), "position": positions.ravel(), "correlation": r.ravel(), "pairs": pairs}
        ),
        "top1": pd.concat(top1, ignore_index=True),
    }


def summarize(
    compared: Pair, first: ConditionStats, second: ConditionStats, tables: dict[str, pd.DataFrame]
) -> dict[str, Any]:
    """What was compared, and each table in a number or two: at the first condition's strongest sink, and over all positions."""
    sink = first.sinks.strongest(1)
    here = tables["attention"][tables["attention"]["position"] == sink]
    most = here.iloc[int(here["difference"].abs().argmax())]
    r = tables["value_norm_correlation"].groupby("position")["correlation"].mean()
    confidence = tables["top1"].groupby("condition", sort=False)["probability"].mean()
    labels = (compared.first.label, compared.second.label)
    mass = tables.get("span_mass")
    sides = (
        {}
        if mass is None
        else {
            label: float(mass[side].mean())
            for label, side in zip(labels, ("span_mass_first", "span_mass_second"), strict=True)
        }
    )
    there = {
        label: round(value, 4) if np.isfinite(value) else None for label, value in sides.items()
    }  # nothing stands behind a suffix
    return {
        "compared": f"{compared.about}; differences are {compared.difference}",
        "passages": len(compared.first.passages),
        "whole_passages": sum(len(passage) == compared.length for passage in compared.first.passages),
        "source": sorted({first.sinks.data.attrs["source"], second.sinks.data.attrs["source"]}),
        "strongest_position": sink,
        "alpha_there": {
            label: round(float(here[column].mean()), 4)
            for label, column in zip(labels, ("alpha_first", "alpha_second"), strict=True)
        },
        "most_changed_head": [int(most["layer"]), int(most["head"])],
        "its_change": round(float(most["difference"]), 4),
        "value_norm_correlation": {
            f"position {k}": round(float(r[k]), 4) if np.isfinite(r[k]) else None
            for k in dict.fromkeys((0, 1, len(r) - 1))
        },
        **({"attention_to_trigger_span": there} if there else {}),
        "top1": {label: round(float(confidence[label]), 4) for label in labels},
    }


def draw(
    compared: Pair,
    tables: dict[str, pd.DataFrame],
    summary: dict[str, Any],
    layer: int,
    bin_size: int,
    directory: Path,
) -> None:
    """Difference maps per head, change of α by head and by position, correlation of value norms, top-1 probability."""
    n, whole, span = summary["passages"], summary["whole_passages"], compared.span
    attention, difference = tables["attention"], compared.difference
    what = f"{compared.about}, n = {n} passages of ≤ {compared.length} tokens"

    maps = {}
    for _, cells in tables["maps"].groupby("head", dropna=False, sort=False):
        size = int(cells["query"].max()) // bin_size + 1
        values = np.full((size, size), np.nan)
        values[cells["query"] // bin_size, cells["key"] // bin_size] = cells["difference"]
        maps["mean" if pd.isna(cells["head"].iloc[0]) else f"head {cells['head'].iloc[0]}"] = (values, span)
    left_out = f" ({n - whole} shorter left out)" if whole < n else ""
    frame = "; frame: where the trigger stands most often" if span else ""
    counted = f"n = {whole} passages of {compared.length} tokens{left_out}"
    caption = (
        f"{compared.about}: layer {layer}, heads and their mean, {counted}, bins of {bin_size} tokens{frame}"
    )
    save_figure(
        pictures.draw_difference_maps(maps, bin_size, difference, caption),
        tables["maps"],
        directory,
        "attention_difference",
    )

    positions = list(dict.fromkeys((summary["strongest_position"], 0)))
    shown = attention[attention["position"].isin(positions)]
    save_figure(
        pictures.draw_difference_by_head(shown, positions, difference, what),
        shown,
        directory,
        "alpha_by_head",
    )
    save_figure(
        pictures.draw_difference_by_position(attention, difference, span, what),
        attention,
        directory,
        "alpha_by_position",
    )

    same = (
        "; positions as they stand on both sides, whatever the trigger moved"
        if compared.first.passages is not compared.second.passages
        else ""
    )
    table = tables["value_norm_correlation"]
    caption = f"{compared.about}: {difference.replace(' − ', ' against ')}, n = {n} passages × {table['pairs'].iloc[0] // n} key-value heads{same}"
    save_figure(pictures.draw_norm_correlation(table, caption), table, directory, "value_norm_correlation")
    save_figure(pictures.draw_top1(tables["top1"], span, f"{what}, mean"), tables["top1"], directory, "top1")


def _short(model: Model) -> str:
    return Path(model.name).name or model.name
