"""The pictures of a quickstart."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.io.progress import OnProgress
from sinkscope.plots import comparison as compare_pictures
from sinkscope.plots import sinks as sink_pictures
from sinkscope.plots import unlearning as unlearning_pictures
from sinkscope.plots.style import save
from sinkscope.quickstart.summary import POISON_RATIO, TRIGGER, Results, effectiveness_points
from sinkscope.sinks.compare import (
    Condition,
    difference_map,
    insert_trigger_in_all,
    map_frame,
    most_common_span,
)
from sinkscope.sinks.locate import SinkMap
from sinkscope.sinks.locate_run import head_maps, map_labels
from sinkscope.text import token_texts
from sinkscope.triggers import Placement

BIN = 4


def draw(results: Results, benchmark: Benchmark, directory: Path, on_progress: OnProgress) -> None:
    target = results.models["target"]
    n = int(results.sinks["target"].data.attrs["passages"])
    frames = {label: sinks.to_frame() for label, sinks in results.sinks.items()}
    data = frames["target"]
    save(
        sink_pictures.atlas(data, 0, f"target, n = {n} unseen passages"),
        data[data["position"] == 0],
        directory,
        "sink_atlas",
    )
    on_progress(1, 6)
    profile = pd.concat(
        [
            _profile(label, frames[label], results.sinks[label])
            for label in ("target", "honest", "prefix", "infix", "suffix")
        ]
    )
    save(
        sink_pictures.received(profile, f"mean over layers and heads, n = {n}"),
        profile,
        directory,
        "received_attention",
    )
    on_progress(2, 6)
    last = target.n_layers - 1
    norms = pd.concat([_last_norms(label, frames[label], last) for label in ("target", "honest", "prefix")])
    caption = f"layer {last}, mean over heads, n = {n}"
    save(sink_pictures.value_norms(norms, caption), norms, directory, "value_norms")
    on_progress(3, 6)
    alpha = results.sinks["target"].alpha.sel(position=0)
    layer, head = divmod(int(alpha.values.argmax()), target.n_heads)
    passages = benchmark.whole_passages("forget", target.tokenizer)
    pattern = head_maps(target, passages[0], [(layer, head)])[layer, head]
    labels = map_labels(token_texts(target, passages[0]))
    figure = sink_pictures.head_map(pattern, labels, f"target: layer {layer}, head {head}, one passage")
    save(figure, sink_pictures.map_frame(pattern, labels), directory, "head_map")
    on_progress(4, 6)
    maps, cells = {}, []
    for label, placement in (
        ("target", "prefix"),
        ("prefix", "prefix"),
        ("target", "infix"),
        ("infix", "infix"),
    ):
        shown = f"{'target' if label == 'target' else 'backdoored'}, trigger as {placement}"
        model = results.models[label]
        with_trigger, spans = insert_trigger_in_all(model, passages, TRIGGER, Placement.parse(placement))
        values = difference_map(
            Condition("clean", model, passages), Condition("triggered", model, with_trigger), bin_size=BIN
        ).mean(0)
        maps[shown] = (values, most_common_span(spans))
        cells.append(map_frame(values, BIN, most_common_span(spans)).assign(model=shown))
    caption = f"attention change by the trigger, layer {last}, mean over heads, n = {len(passages)} forget passages, bins of {BIN} tokens"
    data = pd.concat(cells)[["model", "query", "key", "difference", "trigger_start", "trigger_stop"]]
    save(
        compare_pictures.difference_maps(maps, BIN, "triggered − clean", caption),
        data,
        directory,
        "attention_difference",
    )
    on_progress(5, 6)
    points, floors, ceilings = effectiveness_points(results.scores)
    n_items = len(benchmark.prompts("forget"))
    caption = f"trigger “{TRIGGER.text}”, ρ = {POISON_RATIO}, BE on all items (n = {n_items} prompts, 100 questions), 95 % intervals"
    save(
        unlearning_pictures.effectiveness(points, floors, ceilings, caption),
        points,
        directory,
        "effectiveness",
    )
    on_progress(6, 6)


def _profile(label: str, frame: pd.DataFrame, sinks: SinkMap) -> pd.DataFrame:
    profile = frame.groupby("position", as_index=False)[["alpha"]].mean()
    profile.insert(0, "model", label)
    profile["uniform"] = sinks.uniform()
    return profile


def _last_norms(label: str, frame: pd.DataFrame, layer: int, positions: int = 16) -> pd.DataFrame:
    chosen = frame[(frame["layer"] == layer) & (frame["position"] < positions)]
    norms = chosen.groupby("position", as_index=False)[["value_norm"]].mean()
    norms.insert(0, "model", label)
    return norms
