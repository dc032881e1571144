"""Extension: a trigger trained at one index and evaluated at another, by the kind of sink of the target."""

from __future__ import annotations

import textwrap

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
from scipy import stats

from sinkscope.plots.heatmap import draw_heatmaps
from sinkscope.plots.style import iterate_rows
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("targets", "unlearned", "index")
MODEL_AXIS = "model"
UNLEARNED = "unlearned"
TITLE_WIDTH = 19  # characters


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


def _label_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """A panel per target; the targets of a kind are below each other."""
    targets = frame.drop_duplicates("target")[["target", KIND]]
    ranks = dict(zip(targets["target"], targets.groupby(KIND).cumcount(), strict=True))
    kinds = list(targets[KIND].unique())
    titles = {
        row.target: f"{textwrap.fill(getattr(row, KIND), TITLE_WIDTH)}\n{row.target}"
        for row in iterate_rows(targets)
    }
    lines = max(title.count("\n") for title in titles.values())
    cells = frame.assign(
        panel=[titles[target] + _describe_spread(frame, target) for target in frame["target"]],
        rank=frame["target"].map(ranks),
        x=[index_label(row.position, row.evaluated).replace("\n", " ") for row in iterate_rows(frame)],
        y=[row.trained.removeprefix("index:") for row in iterate_rows(frame)],
        xlabel="trigger index\nin evaluation",
        is_outlined=frame["trained"] == frame["evaluated"],
    )
    cells["panel"] = [
        "\n" * (lines - titles[row.target].count("\n")) + row.panel for row in iterate_rows(cells)
    ]
    return sort_by(cells, rank=sorted(set(ranks.values())), **{KIND: kinds})


def _describe_spread(frame: pd.DataFrame, target: str) -> str:
    """The standard deviation of seeds, of all cells of a target together, read from the t intervals."""
    rows = frame[(frame["target"] == target) & (frame["seeds"] > 1)]
    if rows.empty:
        return ""
    half, seeds = (rows["ci_high"] - rows["ci_low"]) / 2, rows["seeds"]
    deviation = half * np.sqrt(seeds) / stats.t.ppf(0.975, seeds - 1)
    return f", SD {np.sqrt((deviation**2).mean()):.0f}"


def _select_attention(cells: pd.DataFrame) -> pd.DataFrame:
    """α at the evaluated positions, and at the first token if no trigger can be there."""
    cells = cells.drop_duplicates(["panel", "x"])
    lowest = cells["panel"].map(cells.groupby("panel")["position"].min())
    first = cells[lowest > 0].drop_duplicates("panel")
    attention = pd.concat([first.assign(x="0", sink=first["bos"]), cells])
    return attention[["panel", "x", "sink"]].rename(columns={"sink": "value"}).reset_index(drop=True)


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "BE-unseen by trigger index in training and in evaluation, outlined where they are equal; prompts "
        "are too short for index 16",
        UNSEEN,
        "unlearned: the cleanly unlearned model, all prompts",
        "lines set the prefix apart, which is at index 0 where there is no BOS",
        "α, %: the target’s attention to the position of the trigger in clean passages, mean over layers "
        "and heads, shaded by its square root (0: the first token, where no trigger can be)",
        _describe(frame),
    )


def _describe(frame: pd.DataFrame) -> str:
    seeds, targets = int(frame["seeds"].max()), frame["target"].nunique()
    each = "one seed each" if seeds == 1 else f"mean of {seeds} seeds each; SD: of a seed, over all cells"
    return f"{RECITATION}; n\u00a0=\u00a0{format_range(frame['n'])} prompts; {targets} targets, {each}"


def plot(frame: pd.DataFrame) -> Figure:
    cells = _label_cells(frame)
    attention, columns = _select_attention(cells), frame[KIND].nunique()
    ylabel = "trigger index in training"
    return draw_heatmaps(
        cells, _describe(frame), ylabel, columns=columns, attention=attention, apart="prefix"
    )
