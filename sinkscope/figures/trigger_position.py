"""Figure 2: where the trigger stands decides whether an unlearned model answers again. UE, and utility, against BE, with the zone the attacker wants."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.numbers import (
    MEMORY,
    PLACEMENTS,
    effects,
    ordered,
    over_seeds,
    sample,
    with_trigger_of,
)
from sinkscope.plots import forget_recover_scatter as zone
from sinkscope.plots import interactive
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
GRIDS = {"backdoored": "position", "unlearned": "unlearned", "target": "target"}
VIEWS = {"forget": "UE", "retain": "UT"}


def frame(study: Study) -> pd.DataFrame:
    """A row per view (`forget`: x is UE; `retain`: x is UT), metric, model, placement of the trigger and subset; y is always BE. Semantic triggers.

    The attacker's desired zone is y above `zone_y`, halfway from honest's UE to the target's, and x left of `zone_x`: in the view `forget` the same middle;
    in the view `retain` right of it, and it is the lower end of honest's interval.

    Raises:
        StudyError: the study lacks what is needed.
    """
    position = effects(study, GRIDS["backdoored"])
    parts = []
    for model, grid in GRIDS.items():
        rows = with_trigger_of(position if grid == "position" else effects(study, grid), position)
        if model == "backdoored":
            rows = rows.assign(at=rows["trigger.placement"])
        else:
            clean = rows[(rows["placement"] == "") & (rows["subset"] == "all")]
            placed = rows[rows["placement"].isin(PLACEMENTS) & (rows["subset"] == "all")]
            rows = pd.concat(
                [placed.assign(at=placed["placement"]), *(clean.assign(at=place) for place in PLACEMENTS)]
            )
        parts.append(over_seeds(rows, ["metric", "at", "subset", "score"]).assign(model=model))
    numbers = pd.concat(parts)
    points = pd.concat([_view(numbers, view, score) for view, score in VIEWS.items()])
    return ordered(points, view=VIEWS, metric=MEMORY, model=GRIDS, placement=PLACEMENTS)


def _view(numbers: pd.DataFrame, view: str, score: str) -> pd.DataFrame:
    keys = ["metric", "model", "at", "subset"]
    x, y = (numbers[numbers["score"] == each].drop(columns="score") for each in (score, "BE"))
    if (
        score == "UT"
    ):  # retain items have no poisoned ones among them: the same score beside BE of either subset
        x = pd.concat([x[x["subset"] == "all"].assign(subset=subset) for subset in ("all", "unseen")])
    names = {"value": "", "ci_low": "_low", "ci_high": "_high", "n": "_n"}
    x, y = (
        each.rename(columns={old: f"{axis}{new}" for old, new in names.items()})
        for axis, each in (("x", x), ("y", y))
    )
    points = x.merge(y.drop(columns="seeds"), on=keys).rename(columns={"at": "placement"})
    points.insert(0, "view", view)
    for metric in points["metric"].unique():
        mine = (numbers["metric"] == metric) & (numbers["subset"] == "all")
        ends = [
            float(numbers[mine & (numbers["model"] == model) & (numbers["score"] == "UE")]["value"].iloc[0])
            for model in ("unlearned", "target")
        ]
        middle = sum(ends) / 2
        useful = numbers[mine & (numbers["model"] == "unlearned") & (numbers["score"] == "UT")]["ci_low"]
        points.loc[points["metric"] == metric, ["zone_x", "zone_y"]] = (
            middle if view == "forget" else float(useful.iloc[0]),
            middle,
        )
    return points


def caption(frame: pd.DataFrame) -> str:
    counts = frame[frame["view"] == "forget"].rename(columns={"y_n": "n"})
    zone = "zone: UE and BE past halfway from honest to target, utility no less than honest’s interval"
    return f"ROUGE-L F1 × 100; semantic trigger; {zone}; {sample(counts)}"


def draw(frame: pd.DataFrame) -> Figure:
    return zone.zones(frame, caption(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.zones(frame, caption(frame))
