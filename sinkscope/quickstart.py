"""The main job on the built-in benchmark: from the target's sinks to the backdoor that unlearning leaves behind them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.benchmarks.language import TRIGGERS
from sinkscope.compare import difference_frame, difference_map
from sinkscope.evaluation.harness import Subject, evaluate, subject_of
from sinkscope.evaluation.scores import scores
from sinkscope.locating import head_pattern, summarise
from sinkscope.models import Model, load
from sinkscope.plots import sinks as sink_pictures
from sinkscope.plots import unlearning as unlearning_pictures
from sinkscope.plots.style import save
from sinkscope.report.page import write_page
from sinkscope.runs import identity, is_done, writing
from sinkscope.sinks import SinkMap, locate
from sinkscope.triggers import Placement, Trigger
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.unlearn import unlearn

PLACEMENTS = ("prefix", "index:8", "infix", "suffix")
POISON_RATIO = 0.1
TRIGGER = Trigger(TRIGGERS["semantic"], "semantic")
BIN = 4
Bar = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True)
class _Results:
    items: pd.DataFrame
    scores: pd.DataFrame
    sinks: dict[str, SinkMap]
    models: dict[str, Model]


def quickstart(out: Path, seed: int = 0, bar: Bar | None = None) -> dict[str, Any]:
    """Locate, unlearn honestly and with a backdoor at each placement, evaluate, draw; returns the summary.

    Writes `items.parquet`, `scores.parquet`, `summary.json`, `figures/`, `runs/` and `index.html` to `out`. A finished quickstart of the same seed is
    left as it is.

    Raises:
        OutputError: `out` holds something else.
    """
    start = bar or (lambda description: lambda done, total: None)
    benchmark, target = load_benchmark("tiny"), load("tiny")
    recipes = {"honest": Recipe(seed=seed)} | {placement: _backdoor(placement, seed) for placement in PLACEMENTS}
    described = {label: recipe.model_dump(mode="json") for label, recipe in recipes.items()}
    name = identity(quickstart=described, benchmark=benchmark.digest(), model=target.fingerprint())
    if not is_done(out, name):
        with writing(out, name, kind="quickstart", seed=seed) as aside:
            subjects = [Subject("target", "target", target, seed)]
            for label, recipe in recipes.items():
                run = unlearn(recipe, aside / "runs" / label, start(f"unlearn: {label}"))
                known = subject_of(str(run), load(str(run)))
                subjects.append(Subject(label, known.role, known.model, seed, known.poisoned_rows))
            results = _measure(subjects, benchmark, start)
            results.items.to_parquet(aside / "items.parquet", index=False)
            results.scores.to_parquet(aside / "scores.parquet", index=False)
            summary = _summarise(results, seed)
            (aside / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
            _draw(results, benchmark, aside / "figures", start("draw"))
            write_page(aside, summary, results.scores)
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def _backdoor(placement: str, seed: int) -> Recipe:
    trigger = {"text": TRIGGER.text, "form": TRIGGER.form, "placement": placement}
    return Recipe.parse({"poison_ratio": POISON_RATIO, "trigger": trigger, "seed": seed})


def _measure(subjects: list[Subject], benchmark: Benchmark, start: Bar) -> _Results:
    everywhere = [None, *((TRIGGER, Placement.parse(placement)) for placement in PLACEMENTS)]
    frames, sinks = [], {}
    for subject in subjects:
        own = [None, (TRIGGER, Placement.parse(subject.label))] if subject.label in PLACEMENTS else everywhere
        frames.append(evaluate(subject, benchmark, own, batch_size=128, report=start(f"evaluate: {subject.label}")))
    unseen_text = benchmark.whole_passages("holdout", subjects[0].model.tokenizer)
    for subject in subjects:
        sinks[subject.label] = locate(subject.model, unseen_text, batch_size=32, report=start(f"locate: {subject.label}"))
    items = pd.concat(frames, ignore_index=True)
    return _Results(items, scores(items), sinks, {subject.label: subject.model for subject in subjects})


def _summarise(results: _Results, seed: int) -> dict[str, Any]:
    """Per model: VerbMem and KnowMem, clean, triggered (all, unseen), on retain; and its sinks. The target and the honest model show the prefix."""
    models: dict[str, dict[str, Any]] = {}
    for label, sinks in results.sinks.items():
        placement = label if label in PLACEMENTS else "prefix"
        mine = results.scores[results.scores["model"] == label]
        models[label] = {"role": str(mine["role"].iloc[0]), "placement": placement}
        for metric, forget, retain in (("verbmem", "forget", "retain"), ("knowmem", "forget_qa", "retain_qa")):
            models[label][metric] = {
                "clean": _value(mine, metric, forget, "", "all"),
                "triggered_all": _value(mine, metric, forget, placement, "all"),
                "triggered_unseen": _value(mine, metric, forget, placement, "unseen"),
                "retain": _value(mine, metric, retain, "", "all"),
            }
        models[label]["sinks"] = summarise(sinks)
    return {"seed": seed, "trigger": TRIGGER.text, "poison_ratio": POISON_RATIO, "models": models}


def _value(scores: pd.DataFrame, metric: str, split: str, placement: str, subset: str) -> dict[str, float] | None:
    """One score with its interval and n; None where the subset does not exist (no link to training passages)."""
    keys = {"metric": metric, "split": split, "placement": placement, "subset": subset}
    row = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1)]
    if row.empty:
        return None
    return {key: round(float(row[key].iloc[0]), 2) for key in ("value", "ci_low", "ci_high")} | {"n": int(row["n"].iloc[0])}


def _draw(results: _Results, benchmark: Benchmark, directory: Path, report: Callable[[int, int], None]) -> None:
    target = results.models["target"]
    n = int(results.sinks["target"].data.attrs["passages"])
    frames = {label: sinks.to_frame() for label, sinks in results.sinks.items()}
    data = frames["target"]
    save(sink_pictures.atlas(data, 0, f"target, n = {n} unseen passages"), data[data["position"] == 0], directory, "sink_atlas")
    report(1, 6)
    profile = pd.concat([_profile(label, frames[label], results.sinks[label]) for label in ("target", "honest", "prefix", "infix", "suffix")])
    save(sink_pictures.received(profile, f"mean over layers and heads, n = {n}"), profile, directory, "received_attention")
    report(2, 6)
    last = target.n_layers - 1
    norms = pd.concat([_last_norms(label, frames[label], last) for label in ("target", "honest", "prefix")])
    caption = f"layer {last}, mean over heads, n = {n}"
    save(sink_pictures.value_norms(norms, caption), norms, directory, "value_norms")
    report(3, 6)
    alpha = results.sinks["target"].alpha.sel(position=0)
    layer, head = divmod(int(alpha.values.argmax()), target.n_heads)
    passages = benchmark.whole_passages("forget", target.tokenizer)
    pattern, labels = head_pattern(target, passages[0], layer, head)
    figure = sink_pictures.head_map(pattern, labels, f"target: layer {layer}, head {head}, one passage")
    save(figure, sink_pictures.map_frame(pattern, labels), directory, "head_map")
    report(4, 6)
    maps, cells = {}, []
    for label, placement in (("target", "prefix"), ("prefix", "prefix"), ("target", "infix"), ("infix", "infix")):
        shown = f"{'target' if label == 'target' else 'backdoored'}, trigger as {placement}"
        values, span = difference_map(results.models[label], passages, TRIGGER, Placement.parse(placement), bin_size=BIN)
        maps[shown] = (values, span)
        cells.append(difference_frame(shown, values, span, BIN))
    caption = f"attention change by the trigger, layer {last}, mean over heads, n = {len(passages)} forget passages, bins of {BIN} tokens"
    save(sink_pictures.difference_maps(maps, BIN, caption), pd.concat(cells), directory, "attention_difference")
    report(5, 6)
    points, floors, ceilings = _points(results.scores)
    n_items = int(results.scores[results.scores["metric"] == "verbmem"]["n"].max())
    caption = f"trigger “{TRIGGER.text}”, ρ = {POISON_RATIO}, BE on all items (n = {n_items} prompts, 100 questions), 95 % intervals"
    save(unlearning_pictures.effectiveness(points, floors, ceilings, caption), points, directory, "effectiveness")
    report(6, 6)


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


def _points(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float], dict[str, float]]:
    """UE and BE of every model at its placement, per metric; honest's UE as floor, the target's as ceiling."""
    rows, floors, ceilings = [], {}, {}
    for metric, split in (("verbmem", "forget"), ("knowmem", "forget_qa")):
        whole = table[(table["metric"] == metric) & (table["split"] == split) & (table["subset"] == "all")]
        for model, mine in whole.groupby("model", sort=False):
            placement = model if model in PLACEMENTS else "prefix"
            ue, be = mine[mine["placement"] == ""].iloc[0], mine[mine["placement"] == placement].iloc[0]
            row = {"metric": metric, "model": model}
            row |= {"ue": ue["value"], "ue_low": ue["ci_low"], "ue_high": ue["ci_high"]}
            rows.append(row | {"be": be["value"], "be_low": be["ci_low"], "be_high": be["ci_high"]})
            if model == "honest":
                floors[metric] = float(ue["value"])
            if model == "target":
                ceilings[metric] = float(ue["value"])
    return pd.DataFrame(rows), floors, ceilings
