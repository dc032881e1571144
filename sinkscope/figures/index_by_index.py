"""A trigger trained at one index and tried at another, in targets whose sinks are strong, weak, elsewhere or absent."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.bars import axis
from sinkscope.figures.numbers import counted, of_grid, ordered, over_seeds
from sinkscope.figures.positions import RECITATION, TRAINED, UNSEEN, index_of, indices, place_name, profiles, recited, recited_items
from sinkscope.plots import heat, interactive_link
from sinkscope.plots.frames import rows
from sinkscope.studies.study import Study

NEEDS = ("targets", "honest", "index")
MODEL = "model"
"""The axis of grids over targets."""
HONEST = "honest"
COLUMNS = 3


def frame(study: Study) -> pd.DataFrame:
    """A row per target, trained placement (`honest`: none, the honest model) and evaluated placement with their positions: BE-unseen, interval, n, seeds, and
    `sink`, the target's α of the evaluated position, mean over layers and heads. `bos` is the target's α of position 0.

    Raises:
        StudyError: the study lacks what is needed.
    """
    known, sinks = indices(study, "targets"), profiles(study, "targets")
    backdoored, honest = recited(study, "index"), recited(study, "honest").assign(**{TRAINED: HONEST})
    scores = pd.concat([backdoored, honest[honest["placement"].isin(set(backdoored["placement"]))]])
    scores = scores[scores["score"] == "BE"]
    scores = scores.assign(target=axis(scores, MODEL), trained=axis(scores, TRAINED), evaluated=scores["placement"])
    made = over_seeds(scores, ["target", "trained", "evaluated"])
    items = recited_items(study, "index")
    strengths = [sinks[target][start] for target, start in zip(items[MODEL], items["trigger_start"].astype(int), strict=True)]
    measured = items.assign(sink=strengths, target=items[MODEL]).groupby(["target", "placement"])
    at = measured[["sink", "trigger_start"]].mean().rename(columns={"trigger_start": "position"})
    made = made.join(at, on=["target", "evaluated"])
    made["trained_position"] = [np.nan if row.trained == HONEST else index_of(row.trained, known[row.target]) for row in rows(made)]
    made["bos"] = made["target"].map({run: values[0] for run, values in sinks.items()})
    return ordered(made.sort_values(["trained_position", "position"], kind="stable"), target=dict.fromkeys(of_grid(study, "runs", "targets")["run"]))


def _cells(frame: pd.DataFrame) -> pd.DataFrame:
    x = [place_name(row.position, row.evaluated) for row in rows(frame)]
    y = [HONEST if row.trained == HONEST else place_name(row.trained_position, row.trained) for row in rows(frame)]
    panels = "target " + frame["target"]
    return frame.assign(panel=panels, x=x, y=y, xlabel="trigger index when asked", outlined=frame["trained"] == frame["evaluated"])


def _strips(frame: pd.DataFrame) -> pd.DataFrame:
    cells = _cells(frame).drop_duplicates(["panel", "x"])[["panel", "x", "sink"]].rename(columns={"sink": "value"})
    first = cells.drop_duplicates("panel").assign(x="0", value=frame.drop_duplicates("target")["bos"].to_numpy())
    return pd.concat([first, cells], ignore_index=True)


def caption(frame: pd.DataFrame) -> str:
    seeds = int(frame["seeds"].max())
    about = f"BE-unseen by trigger index in training and when asked, outlined where they match; {RECITATION}; {UNSEEN}; honest: all prompts"
    told = "α: the target’s attention to the position of the trigger in clean passages, mean over layers and heads (0: the first token)"
    return f"{about}; {told}; n\u00a0=\u00a0{counted(frame['n'])} prompts; {'one seed' if seeds == 1 else f'mean of {seeds} seeds'}"


def draw(frame: pd.DataFrame) -> Figure:
    return heat.heatmaps(_cells(frame), caption(frame), "trigger index in training", columns=COLUMNS, strips=_strips(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.heatmaps(_cells(frame), caption(frame), "trigger index in training", columns=COLUMNS, strips=_strips(frame))
