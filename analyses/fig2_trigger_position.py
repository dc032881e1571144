"""Figure 2: scores without and with the trigger, and utility, by placement of the trigger."""

from __future__ import annotations

import pandas as pd
from common import (
    MEMORY,
    PLACEMENT_AXIS,
    PLACEMENTS,
    concat_captions,
    describe_items,
    keep_triggers_of,
    select_effects,
    sort_by,
)
from matplotlib.figure import Figure

from sinkscope.plots.scores import draw_clean_and_triggered
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
GRIDS = {"backdoored": "position", "unlearned": "unlearned", "target": "target"}
VIEWS = {"forget": "UE", "retain": "UT"}
AXIS_COLUMNS = {"value": "", "ci_low": "_low", "ci_high": "_high", "n": "_n"}


def compute(study: Study) -> pd.DataFrame:
    """A row per view (`forget`: x is UE; `retain`: x is UT), metric, model, placement of the trigger and
    subset.

    y is BE, with semantic triggers. The attacker's desired zone is y above `zone_y`, the middle between the
    UE of the unlearned model and of the target. In the view `forget` it is x left of `zone_x`, the same
    middle; in the view `retain` x right of `zone_x`, the lower end of the unlearned model's interval.

    Raises:
        StudyError: the study lacks a grid or a score.
    """
    backdoored = select_effects(study, GRIDS["backdoored"])
    parts = []
    for model, grid in GRIDS.items():
        rows = backdoored if model == "backdoored" else select_effects(study, grid)
        rows = keep_triggers_of(rows, backdoored)
        if model == "backdoored":
            rows = rows.assign(at=rows[PLACEMENT_AXIS])
        else:
            rows = rows[rows["subset"] == "all"]
            triggered = rows[rows["placement"].isin(PLACEMENTS)]
            clean = rows[rows["placement"] == ""]
            copies = [clean.assign(at=placement) for placement in PLACEMENTS]
            rows = pd.concat([triggered.assign(at=triggered["placement"]), *copies])
        parts.append(mean_over_seeds(rows, ["metric", "at", "subset", "score"]).assign(model=model))
    means = pd.concat(parts)
    points = pd.concat([_compute_view(means, view, score) for view, score in VIEWS.items()])
    return sort_by(points, view=VIEWS, metric=MEMORY, model=GRIDS, placement=PLACEMENTS)


def _compute_view(means: pd.DataFrame, view: str, score: str) -> pd.DataFrame:
    x = means[means["score"] == score].drop(columns="score")
    y = means[means["score"] == "BE"].drop(columns=["score", "seeds"])
    if score == "UT":  # no retain item is poisoned: the score is the same in both subsets of BE
        x = pd.concat([x[x["subset"] == "all"].assign(subset=subset) for subset in ("all", "unseen")])
    x = x.rename(columns={old: f"x{new}" for old, new in AXIS_COLUMNS.items()})
    y = y.rename(columns={old: f"y{new}" for old, new in AXIS_COLUMNS.items()})
    points = x.merge(y, on=["metric", "model", "at", "subset"]).rename(columns={"at": "placement"})
    points.insert(0, "view", view)
    for metric in points["metric"].unique():
        rows = means[(means["metric"] == metric) & (means["subset"] == "all")]
        unlearned = rows[rows["model"] == "unlearned"].groupby("score", sort=False).first()
        target = rows[rows["model"] == "target"].groupby("score", sort=False).first()
        middle = sum([float(unlearned.loc["UE", "value"]), float(target.loc["UE", "value"])]) / 2
        edge = middle if view == "forget" else float(unlearned.loc["UT", "ci_low"])
        points.loc[points["metric"] == metric, ["zone_x", "zone_y"]] = (edge, middle)
    return points


def _describe(frame: pd.DataFrame) -> str:
    return describe_items(frame[frame["view"] == "forget"].rename(columns={"y_n": "n"}))


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "ROUGE-L F1 × 100 with and without a semantic trigger",
        "each backdoored model has its trigger where it was trained, and is measured on items whose passage "
        "was not poisoned",
        "an attacker wants the score with the trigger above and that without it below the middle between the "
        "clean scores of the unlearned model and of the target (dashed), and a utility not below the "
        "unlearned model’s interval (shaded)",
        _describe(frame),
    )


def plot(frame: pd.DataFrame) -> Figure:
    return draw_clean_and_triggered(frame, _describe(frame))
