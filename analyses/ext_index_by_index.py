"""Extension: a trigger trained at one index and evaluated at another, by the kind of sink of the target."""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import PLACEMENT_AXIS, concat_captions, format_range, select_axis, select_grid, sort_by
from matplotlib.figure import Figure
from positions import (
    KIND,
    RECITATION,
    UNSEEN,
    find_indices,
    index_label,
    select_recitation,
    select_triggered_items,
    sink_profiles,
    target_kind,
    trigger_index,
)

from sinkscope.plots.heatmap import draw_heatmaps
from sinkscope.plots.style import iterate_rows
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("targets", "unlearned", "index")
MODEL_AXIS = "model"
UNLEARNED = "unlearned"
N_COLUMNS = 3


def compute(study: Study) -> pd.DataFrame:
    """A row per target, trained placement (`unlearned`: the unlearned model) and evaluated placement.

    value is BE-unseen, with its interval, n, seeds; `position` and `trained_position` are trigger indices;
    `sink` is the target's α at the evaluated position, mean over layers and heads, `bos` that of position 0.

    Raises:
        StudyError: the study lacks a grid, a score or a capture.
    """
    indices = find_indices(study, "targets")
    profiles = sink_profiles(study, "targets")
    backdoored = select_recitation(study, "index")
    unlearned = select_recitation(study, "unlearned").assign(**{PLACEMENT_AXIS: UNLEARNED})
    unlearned = unlearned[unlearned["placement"].isin(set(backdoored["placement"]))]
    scores = pd.concat([backdoored, unlearned])
    scores = scores[scores["score"] == "BE"]
    scores = scores.assign(
        target=select_axis(scores, MODEL_AXIS),
        trained=select_axis(scores, PLACEMENT_AXIS),
        evaluated=scores["placement"],
    )
    frame = mean_over_seeds(scores, ["target", "trained", "evaluated"])
    items = select_triggered_items(study, "index")
    pairs = zip(items[MODEL_AXIS], items["trigger_start"].astype(int), strict=True)
    items = items.assign(sink=[profiles[target][start] for target, start in pairs], target=items[MODEL_AXIS])
    means = items.groupby(["target", "placement"])[["sink", "trigger_start"]].mean()
    frame = frame.join(means.rename(columns={"trigger_start": "position"}), on=["target", "evaluated"])
    frame["trained_position"] = [
        np.nan if row.trained == UNLEARNED else trigger_index(row.trained, indices[row.target])
        for row in iterate_rows(frame)
    ]
    frame["bos"] = frame["target"].map({run: values[0] for run, values in profiles.items()})
    frame[KIND] = [target_kind(target, study) for target in frame["target"]]
    frame = frame.sort_values(["trained_position", "position"], kind="stable")
    return sort_by(frame, target=dict.fromkeys(select_grid(study, "runs", "targets")["run"]))


def _compute_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the targets of a kind."""
    targets = frame.groupby(KIND, sort=False)["target"].unique()
    names = {kind: f"{kind}\n({', '.join(members)})" for kind, members in targets.items()}
    by = frame.groupby([KIND, "trained", "evaluated"], sort=False)
    cells = by[["value", "trained_position", "position", "sink", "bos"]].mean().reset_index()
    return cells.assign(
        panel=cells[KIND].map(names),
        x=[index_label(row.position, row.evaluated) for row in iterate_rows(cells)],
        y=[
            UNLEARNED if row.trained == UNLEARNED else index_label(row.trained_position, row.trained)
            for row in iterate_rows(cells)
        ],
        xlabel="trigger index in evaluation",
        is_outlined=cells["trained"] == cells["evaluated"],
    )


def _select_attention(cells: pd.DataFrame) -> pd.DataFrame:
    """α at the evaluated positions, and at the first token if no trigger can be there."""
    cells = cells.drop_duplicates(["panel", "x"])
    lowest = cells["panel"].map(cells.groupby("panel")["position"].min())
    first = cells[lowest > 0].drop_duplicates("panel")
    attention = pd.concat([first.assign(x="0", sink=first["bos"]), cells])
    return attention[["panel", "x", "sink"]].rename(columns={"sink": "value"}).reset_index(drop=True)


def caption(frame: pd.DataFrame) -> str:
    seeds = int(frame["seeds"].max())
    return concat_captions(
        "BE-unseen by trigger index in training and in evaluation, outlined where they are equal",
        RECITATION,
        UNSEEN,
        "unlearned: all prompts",
        "α: the target’s attention to the position of the trigger in clean passages, mean over layers "
        "and heads (0: the first token)",
        f"n\u00a0=\u00a0{format_range(frame['n'])} prompts",
        f"mean of the named targets, {'one seed' if seeds == 1 else f'{seeds} seeds'} each",
    )


def plot(frame: pd.DataFrame) -> Figure:
    cells = _compute_cells(frame)
    attention = _select_attention(cells)
    ylabel = "trigger index in training"
    return draw_heatmaps(cells, caption(frame), ylabel, columns=N_COLUMNS, attention=attention)
