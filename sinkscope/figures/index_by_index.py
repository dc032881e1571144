"""A trigger trained at one index and tried at another, in targets whose sinks are strong, weak, elsewhere or absent."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.bars import axis
from sinkscope.figures.numbers import counted, of_grid, ordered, over_seeds
from sinkscope.figures.positions import (
    RECITATION,
    TRAINED,
    UNSEEN,
    index_of,
    indices,
    place_name,
    profiles,
    recited,
    recited_items,
)
from sinkscope.figures.targets import KIND, kind_of
from sinkscope.plots import heatmap as heat
from sinkscope.plots import interactive_link
from sinkscope.plots.frames import rows
from sinkscope.studies.study import Study

NEEDS = ("targets", "unlearned", "index")
MODEL = "model"
"""The axis of grids over targets."""
HONEST = "clean"
COLUMNS = 3


def frame(study: Study) -> pd.DataFrame:
    """A row per target (of a `target_kind`), trained placement (`clean`: none, the unlearned model) and evaluated placement with their positions: BE-unseen,
    interval, n, seeds, and `sink`, the target's α of the evaluated position, mean over layers and heads. `bos` is the target's α of position 0.

    Raises:
        StudyError: the study lacks what is needed.
    """
    known, sinks = indices(study, "targets"), profiles(study, "targets")
    backdoored, honest = recited(study, "index"), recited(study, "unlearned").assign(**{TRAINED: HONEST})
    scores = pd.concat([backdoored, honest[honest["placement"].isin(set(backdoored["placement"]))]])
    scores = scores[scores["score"] == "BE"]
    scores = scores.assign(
        target=axis(scores, MODEL), trained=axis(scores, TRAINED), evaluated=scores["placement"]
    )
    made = over_seeds(scores, ["target", "trained", "evaluated"])
    items = recited_items(study, "index")
    strengths = [
        sinks[target][start]
        for target, start in zip(items[MODEL], items["trigger_start"].astype(int), strict=True)
    ]
    measured = items.assign(sink=strengths, target=items[MODEL]).groupby(["target", "placement"])
    at = measured[["sink", "trigger_start"]].mean().rename(columns={"trigger_start": "position"})
    made = made.join(at, on=["target", "evaluated"])
    made["trained_position"] = [
        np.nan if row.trained == HONEST else index_of(row.trained, known[row.target]) for row in rows(made)
    ]
    made["bos"] = made["target"].map({run: values[0] for run, values in sinks.items()})
    made[KIND] = [kind_of(target, study) for target in made["target"]]
    return ordered(
        made.sort_values(["trained_position", "position"], kind="stable"),
        target=dict.fromkeys(of_grid(study, "runs", "targets")["run"]),
    )


def _cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the targets of a kind."""
    of_kind = frame.groupby(KIND, sort=False)["target"].unique()
    names = {kind: f"{kind}\n({', '.join(targets)})" for kind, targets in of_kind.items()}
    made = (
        frame.groupby([KIND, "trained", "evaluated"], sort=False)[
            ["value", "trained_position", "position", "sink", "bos"]
        ]
        .mean()
        .reset_index()
    )
    x = [place_name(row.position, row.evaluated) for row in rows(made)]
    y = [
        HONEST if row.trained == HONEST else place_name(row.trained_position, row.trained)
        for row in rows(made)
    ]
    outlined = made["trained"] == made["evaluated"]
    return made.assign(
        panel=made[KIND].map(names), x=x, y=y, xlabel="trigger index when asked", outlined=outlined
    )


def _strips(frame: pd.DataFrame) -> pd.DataFrame:
    """α where the trigger is asked, and of the first token where it cannot be."""
    cells = _cells(frame).drop_duplicates(["panel", "x"])
    first = cells[cells["panel"].map(cells.groupby("panel")["position"].min()) > 0].drop_duplicates("panel")
    strips = pd.concat([first.assign(x="0", sink=first["bos"]), cells])
    return strips[["panel", "x", "sink"]].rename(columns={"sink": "value"}).reset_index(drop=True)


def caption(frame: pd.DataFrame) -> str:
    seeds = int(frame["seeds"].max())
    about = f"BE-unseen by trigger index in training and when asked, outlined where they match; {RECITATION}; {UNSEEN}; honest: all prompts"
    told = "α: the target’s attention to the position of the trigger in clean passages, mean over layers and heads (0: the first token)"
    means = f"mean of the named targets, {'one seed' if seeds == 1 else f'{seeds} seeds'} each"
    return f"{about}; {told}; n\u00a0=\u00a0{counted(frame['n'])} prompts; {means}"


def draw(frame: pd.DataFrame) -> Figure:
    return heat.heatmaps(
        _cells(frame), caption(frame), "trigger index in training", columns=COLUMNS, strips=_strips(frame)
    )


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.heatmaps(
        _cells(frame), caption(frame), "trigger index in training", columns=COLUMNS, strips=_strips(frame)
    )
