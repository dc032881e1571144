"""A study's models for the page: what was seen of each with and without the trigger, place by place, and what it scored there; seeds averaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sinkscope.errors import StudyError
from sinkscope.figures.numbers import ONE_SCORE, over_seeds
from sinkscope.report.views import View, mean_of
from sinkscope.studies.captures import CLEAN, TRIGGERED
from sinkscope.studies.study import Study

AXIS = "trigger.placement"
SCORED = ["metric", "split", "subset", "placement"]
BUDGET = 6_000_000
"""Numbers of all views together at most: some 16 MB of the page."""


@dataclass
class Shown:
    """A model, or a family of backdoored models that differ in where the trigger was trained: place → state → view, and scores by place (`""`: clean)."""

    label: str
    role: str
    views: dict[str, dict[str, View]] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    trigger: str = ""


def shown_models(study: Study) -> tuple[list[Shown], list[str]]:
    """The models of which something was captured, and the labels of those that had no room."""
    try:
        attention = study.table("attention")
    except StudyError:
        return [], []
    models: list[Shown] = []
    for label, runs in _groups(study):
        captured = attention[attention["run"].isin(runs["run"]) & (attention["grid"] == runs["grid"].iloc[0])]
        if len(captured):
            models.append(Shown(label, str(runs["role"].iloc[0]), _views(study, captured), *_scores(study, runs)))
    models = [*_families(study, models), *models]
    kept, left, room = [], [], BUDGET
    for model in models:
        room -= sum(_size(view) for states in model.views.values() for view in states.values())
        if room >= 0:
            kept.append(model)
        else:
            left.append(model.label)
    return kept, left


def _groups(study: Study) -> Iterator[tuple[str, pd.DataFrame]]:
    """Runs that differ in the seed alone, with a label."""
    runs = study.table("runs")
    axes = axes_of(runs)
    for _, group in runs.groupby(["grid", *axes, "role"], sort=False, dropna=False):
        first = group.iloc[0]
        words = " ".join([str(first["grid"]), *(str(first[axis]) for axis in axes if not pd.isna(first[axis]))])
        if group["seed"].duplicated().any():
            for name, each in group.groupby("run", sort=False):
                yield f"{words} {name}", each
        else:
            yield words, group


def axes_of(runs: pd.DataFrame) -> list[str]:
    """The axes of a study's grids."""
    return [column for column in runs.columns if column not in ("grid", "run", "seed", "role", "benchmark", "trigger_placement")]


def _views(study: Study, captured: pd.DataFrame) -> dict[str, dict[str, View]]:
    """Of every place the mean over runs, clean and with the trigger; of each run the first capture that has the place."""
    views: dict[str, dict[str, View]] = {}
    for place, rows in captured.groupby("placement", sort=False):
        first = rows[rows["capture"] == rows.groupby("run")["capture"].transform("first")]
        seen = [_seen(study, str(place), each) for _, each in first.groupby("run", sort=False)]
        views[str(place)] = {state: mean_of([both[state] for both in seen]) for state in (CLEAN, TRIGGERED)}
    return views


def _seen(study: Study, place: str, rows: pd.DataFrame) -> dict[str, View]:
    """What one capture saw at one place."""
    run, capture = str(rows["run"].iloc[0]), str(rows["capture"].iloc[0])
    rows = rows.sort_values(["layer", "head", "position"])
    shape = tuple(rows[column].nunique() for column in ("layer", "head", "position"))
    norms, maps = study.norms(run, capture), study.table("maps")
    try:
        pattern, words = study.patterns(run, capture), study.table("passage")
    except StudyError:  # of an older sinkscope
        pattern, words = None, pd.DataFrame({"run": [], "capture": [], "placement": [], "state": [], "position": [], "text": []})
    words = words[(words["run"] == run) & (words["capture"] == capture) & (words["placement"] == place)].sort_values("position")
    there = maps[(maps["run"] == run) & (maps["capture"] == capture) & (maps["placement"] == place)].iloc[0]
    views = {}
    for state, column, condition in ((CLEAN, "alpha_first", CLEAN), (TRIGGERED, "alpha_second", place)):
        of_heads = np.nanmean(norms.sel(condition=condition).values, axis=0).repeat(shape[1] // norms.sizes["kv_head"], axis=1)
        whole = np.full(shape, np.nan)
        whole[..., : of_heads.shape[-1]] = of_heads
        views[state] = View(
            {"alpha": rows[column].to_numpy().reshape(shape), "value_norm": whole},
            int(rows["passages"].iloc[0]),
            None if pattern is None else pattern.sel(placement=place, state=state).values,
            1 if pattern is None else int(pattern.attrs["bin"]),
            words[words["state"] == state]["text"].tolist(),
            span=(int(there["trigger_start"]), int(there["trigger_stop"])) if state == TRIGGERED else None,
        )
    return views


def mean_scores(study: Study) -> pd.DataFrame:
    """A row per model and score without a mask, over seeds: model, metric, split, subset, trigger, placement, value, ci_low, ci_high, n, seeds."""
    try:
        scores = study.table("scores")
    except StudyError:
        return pd.DataFrame()
    made = [pd.DataFrame()]
    for label, runs in _groups(study):
        mine = _of(runs, scores).drop_duplicates(ONE_SCORE)
        if len(mine):
            made.append(over_seeds(mine, ["metric", "split", "subset", "trigger", "placement"]).assign(model=label))
    whole = pd.concat(made, ignore_index=True)
    return whole[["model", *whole.columns.drop("model")]] if len(whole) else whole


def _of(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of runs of one grid, without a mask."""
    return scores[scores["run"].isin(runs["run"]) & (scores["grid"] == runs["grid"].iloc[0]) & (scores["mask"] == "")]


def _scores(study: Study, runs: pd.DataFrame) -> tuple[list[dict[str, Any]], str]:
    """Means over seeds without a mask, clean and with the first trigger that was tried, and that trigger.

    `n` and `seeds` say of how many, `place` where a score counts (`""`: everywhere).
    """
    try:
        scores = study.table("scores")
    except StudyError:
        return [], ""
    mine = _of(runs, scores[scores["subset"] != "poisoned"]).drop_duplicates(ONE_SCORE)
    trigger = next((str(text) for text in mine["trigger"] if text), "")
    mine = mine[mine["trigger"].isin(["", trigger])]
    if mine.empty:
        return [], trigger
    means = over_seeds(mine, SCORED)
    means = means.assign(place=means["placement"], triggered=means["placement"] != "").drop(columns="placement")
    return [{str(key): value for key, value in row.items()} for row in means.to_dict("records")], trigger


def _families(study: Study, models: list[Shown]) -> list[Shown]:
    """Backdoored models of one grid that differ only in where their trigger was trained, as one: at every place the model trained there."""
    runs = study.table("runs")
    if AXIS not in runs:
        return []
    by_label = {model.label: model for model in models}
    families: dict[str, Shown] = {}
    for label, group in _groups(study):
        place, model = group[AXIS].iloc[0], by_label.get(label)
        if model is None or pd.isna(place) or str(place) not in model.views or model.role != "backdoored":
            continue
        rest = [str(group[axis].iloc[0]) for axis in axes_of(runs) if axis != AXIS and not pd.isna(group[axis].iloc[0])]
        name = " ".join([str(group["grid"].iloc[0]), *rest, "(trained where the slider stands)"])
        family = families.setdefault(name, Shown(name, "backdoored", trigger=model.trigger))
        family.views[str(place)] = model.views[str(place)]
        family.scores += [row | {"place": str(place)} for row in model.scores if row["place"] in ("", str(place))]
    return [family for family in families.values() if len(family.views) > 1]


def _size(view: View) -> int:
    cells = sum(values.size for values in view.statistics.values())
    return cells + (0 if view.pattern is None else view.pattern.size // 2)
