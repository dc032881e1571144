"""Figure 4: top-1 probability of the next token by position, with and without the trigger."""

from __future__ import annotations

import pandas as pd
from common import concat_captions, describe_intervals, find_span, format_range, select_captures
from matplotlib.figure import Figure

from sinkscope.plots.lines import draw_lines
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
GRIDS = {"target": "target", "unlearned": "unlearned", "backdoored": "position"}
PLACEMENTS = ("prefix", "infix")
LINES = {"clean": "clean", "prefix": "trigger as prefix", "infix": "trigger as infix"}
"""Condition -> name of its line."""


def compute(study: Study) -> pd.DataFrame:
    """A row per model, placement, condition (`clean`, or the placement of the trigger) and position.

    value is the mean top-1 probability of the next token, with its interval, n passages, seeds and the
    trigger's span.

    Raises:
        StudyError: the study lacks a grid or a capture.
    """
    parts = []
    for model, grid in GRIDS.items():
        for placement in PLACEMENTS:
            rows = select_captures(study, "top1", grid, placement).rename(columns={"probability": "value"})
            rows = rows.assign(condition=rows["condition"].replace("triggered", placement))
            means = mean_over_seeds(rows, ["condition", "position"])
            span = find_span(study, grid, placement)
            parts.append(means.assign(model=model, placement=placement, **span))
    return pd.concat(parts, ignore_index=True)


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "Top-1 probability of the next token with and without the semantic trigger, by position as in the "
        "paper",
        "the trigger moves the tokens behind it to later positions, so that one position behind it has "
        "different tokens with and without the trigger",
        _describe(frame),
    )


def _describe(frame: pd.DataFrame) -> str:
    return f"n\u00a0=\u00a0{format_range(frame['n'])} forget passages; {describe_intervals(frame, None)}"


def plot(frame: pd.DataFrame) -> Figure:
    order = {"clean": -1, "prefix": 0, "infix": 1}
    panels = frame.assign(
        row=frame["placement"],
        column=frame["model"],
        title=frame["model"] + ", trigger as " + frame["placement"],
        ylabel="top-1 probability",
        line=frame["condition"].map(LINES),
        is_hollow=False,
        span_start=frame["trigger_start"],
        span_stop=frame["trigger_stop"],
    )
    panels = panels.sort_values(
        ["placement", "condition"], key=lambda column: column.map(order), kind="stable"
    )
    colors = {name: condition for condition, name in LINES.items()}
    return draw_lines(panels, colors, _describe(frame), (0, 1.02))
