"""A study's models for the page: what was seen of each with and without the trigger, place by place, and what it scored there; seeds averaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from sinkscope.errors import StudyError
from sinkscope.figures.numbers import ONE_SCORE, over_seeds
from sinkscope.report import shown
from sinkscope.report.of_run import with_units
from sinkscope.report.shown import STATES, Shown, seen
from sinkscope.report.views import View, mean_of
from sinkscope.sinks.condition_captures import spans_of
from sinkscope.studies.study import Study

AXIS = "trigger.placement"
FAMILIES = {
    "backdoored": "(trained where the slider stands)",
    "unlearned": "(trigger where the slider stands)",
}
"""Role → how a family of such models is called."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone. `alone`: one of several models, which seeds do not tell apart."""

    label: str
    runs: pd.DataFrame
    alone: bool


def shown_models(study: Study) -> tuple[list[Shown], list[str]]:
    """The models of which something was captured, families first; and the labels of those that had no room. Maps are left out before a model is."""
    try:
        attention = study.table("attention")
    except StudyError:
        return [], []
    models: list[Shown] = []
    families: dict[str, Shown] = {}
    left, room = [], shown.BUDGET
    for group in groups(study):
        captured = rows_of(attention, group.runs)
        if captured.empty:
            continue
        trigger = str(group.runs["trigger"].iloc[0])
        model = Shown(
            group.label,
            str(group.runs["role"].iloc[0]),
            trigger,
            _views(study, captured),
            _scores(study, group, trigger),
        )
        chosen = model.fitted(room)
        if chosen is None:
            left.append(group.label)
            continue
        room -= chosen.size()
        models.append(chosen)
        _join(study, families, chosen, group)
    return [*(family for family in families.values() if len(family.views) > 1), *models], left


def groups(study: Study) -> Iterator[Group]:
    """The models of a study."""
    runs = study.table("runs")
    axes = axes_of(runs)
    for _, group in runs.groupby(["grid", *axes, "role"], sort=False, dropna=False):
        first = group.iloc[0]
        words = " ".join(
            [str(first["grid"]), *(str(first[axis]) for axis in axes if not pd.isna(first[axis]))]
        )
        if group["seed"].duplicated().any() or _several(study, str(first["grid"])):
            for name, each in group.groupby("run", sort=False):
                yield Group(f"{words} {name}", each, True)
        else:
            yield Group(words, group, False)


def rows_of(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table about points of a grid. Points may share a run, as those of honest unlearning do, and differ in what was measured of it."""
    keys = point_keys(runs, table)
    near = table[table["grid"].isin(runs["grid"]) & table["run"].isin(runs["run"])]
    return near.merge(runs[keys].drop_duplicates(), on=keys)


def point_keys(runs: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The columns of a table that tell points of grids apart."""
    return [key for key in ("grid", *axes_of(runs), "run", "seed") if key in table]


def axes_of(runs: pd.DataFrame) -> list[str]:
    """The axes of a study's grids."""
    return [
        column
        for column in runs.columns
        if column not in ("grid", "run", "seed", "role", "benchmark", "trigger", "trigger_placement")
    ]


def mean_scores(study: Study) -> pd.DataFrame:
    """A row per model and score without a mask, over seeds: model, metric, split, subset, trigger, placement, value, unit, ci_low, ci_high, n, seeds;
    `evaluation` where evaluations differ in what they ask."""
    try:
        scores = study.table("scores")
    except StudyError:
        return pd.DataFrame()
    keys = [*asked_apart(study), "metric", "split", "subset", "trigger", "placement"]
    made = [pd.DataFrame()]
    for group in groups(study):
        mine = _of(study, group, scores)
        if len(mine):
            made.append(over_seeds(mine, keys).assign(model=group.label))
    whole = pd.concat(made, ignore_index=True)
    return with_units(whole[["model", *whole.columns.drop("model")]]) if len(whole) else whole


def asked_apart(study: Study) -> list[str]:
    """`evaluation`, if some of a study's evaluations ask another benchmark or other items than others, so that equal metrics are not equal scores."""
    asked = {(part.benchmark, part.items) for part in study.spec.evaluations.values()}
    return ["evaluation"] if len(asked) > 1 else []


def _several(study: Study, grid: str) -> bool:
    """Whether runs of a grid come from several given models."""
    part = study.spec.grids.get(grid)
    if part is None:
        return False
    return len(part.models or ()) > 1 or (part.after is not None and _several(study, part.after))


def _views(study: Study, captured: pd.DataFrame) -> dict[str, dict[str, View]]:
    """Of every place the mean over runs, clean and with the trigger; of each run the first capture that has the place."""
    captured = captured.drop_duplicates(
        ["run", "job", "placement", "layer", "head", "position"]
    )  # captures of two names can be one job
    found: dict[str, list[dict[str, View]]] = {}
    known: set[tuple[str, str]] = set()
    for (run, job), rows in captured.groupby(["run", "job"], sort=False):
        maps = study.patterns(str(job))
        for place, here in rows.groupby("placement", sort=False):
            if (str(run), str(place)) not in known:
                known.add((str(run), str(place)))
                found.setdefault(str(place), []).append(_seen(study, here, maps))
    return {
        place: {state: mean_of([both[state] for both in each]) for state in STATES}
        for place, each in found.items()
    }


def _seen(study: Study, rows: pd.DataFrame, maps: xr.DataArray) -> dict[str, View]:
    """What one capture, which several points of grids may have asked for, saw at one place."""
    job, place = rows[["job", "placement"]].iloc[0]
    changes, words = (
        table[(table["job"] == job) & (table["placement"] == place)]
        for table in map(study.table, ("maps", "passage"))
    )
    return seen(
        rows,
        words.drop_duplicates(["condition", "position"]),
        maps.sel(placement=place),
        (None, spans_of(changes)[place]),
    )


def _of(study: Study, group: Group, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of a group's runs without a mask, each once."""
    return rows_of(scores[scores["mask"] == ""], group.runs).drop_duplicates(
        [*ONE_SCORE, *asked_apart(study)]
    )


def _scores(study: Study, group: Group, trigger: str) -> list[dict[str, Any]]:
    """Means over seeds without a mask, clean and with `trigger`; `n` and `seeds` say of how many."""
    try:
        scores = study.table("scores")
    except StudyError:
        return []
    mine = _of(study, group, scores[(scores["subset"] != "poisoned") & scores["trigger"].isin(["", trigger])])
    if mine.empty:
        return []
    means = over_seeds(mine, [*asked_apart(study), "metric", "split", "subset", "placement"])
    means = means.assign(place=means["placement"], triggered=means["placement"] != "").drop(
        columns="placement"
    )
    return [{str(key): value for key, value in row.items()} for row in means.to_dict("records")]


def _join(study: Study, families: dict[str, Shown], model: Shown, group: Group) -> None:
    """Add a model to the family of those that differ from it in the trigger's place alone."""
    first = group.runs.iloc[0]
    place = first.get(AXIS)
    if (
        group.alone
        or place is None
        or pd.isna(place)
        or str(place) not in model.views
        or model.role not in FAMILIES
    ):
        return
    rest = [
        str(first[axis]) for axis in axes_of(study.table("runs")) if axis != AXIS and not pd.isna(first[axis])
    ]
    name = " ".join([str(first["grid"]), *rest, FAMILIES[model.role]])
    families.setdefault(name, Shown(name, model.role, model.trigger, family=True)).take(model, str(place))
