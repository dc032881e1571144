"""Figure 4: how sure of the next token the target, an honest and a backdoored model are, by position, with and without the trigger."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.captures import captured, spans
from sinkscope.figures.numbers import over_seeds, seeds_in_words
from sinkscope.plots import interactive
from sinkscope.plots import lines as curves
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
GRIDS = {"target": "target", "unlearned": "unlearned", "backdoored": "position"}
PLACEMENTS = ("prefix", "infix")
LINES = {"clean": "clean", "trigger as prefix": "prefix", "trigger as infix": "infix"}
LIMITS = (0, 1.02)


def frame(study: Study) -> pd.DataFrame:
    """A row per model, placement, condition (clean, or with the trigger there) and position: mean top-1 probability of the next token as `value`, its
    interval, n passages, seeds, and the trigger's span.

    Raises:
        StudyError: the study lacks what is needed.
    """
    parts = []
    for model, grid in GRIDS.items():
        for placement in PLACEMENTS:
            rows = captured(study, "top1", grid, placement).rename(columns={"probability": "value"})
            rows = rows.assign(condition=rows["condition"].replace("triggered", placement))
            start, stop = spans(study, grid, placement)
            parts.append(
                over_seeds(rows, ["condition", "position"]).assign(
                    model=model, placement=placement, trigger_start=start, trigger_stop=stop
                )
            )
    return pd.concat(parts, ignore_index=True)


def _panels(frame: pd.DataFrame) -> pd.DataFrame:
    lines = {placement: label for label, placement in LINES.items()}
    return frame.assign(
        row="top-1 probability\ntrigger as " + frame["placement"],
        column=frame["model"],
        line=frame["condition"].map(lines),
        hollow=False,
    ).sort_values(
        ["placement", "condition"],
        key=lambda column: column.map({"prefix": 0, "infix": 1, "clean": -1}),
        kind="stable",
    )


def caption(frame: pd.DataFrame) -> str:
    return f"Top-1 probability of the next token; semantic trigger; n = {frame['n'].min()} forget passages; {seeds_in_words(frame, None)}"


def draw(frame: pd.DataFrame) -> Figure:
    return curves.curves(_panels(frame), LINES, caption(frame), LIMITS)


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.curves(_panels(frame), LINES, caption(frame), LIMITS)
