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
        "Top-1 probability of the next token with and without the semantic trigger, token by token of the "
        "same text",
        "the trigger is inserted at the yellow line and its own positions are left out; the paper compares "
        "by position",
        _describe(frame),
    )


def _describe(frame: pd.DataFrame) -> str:
    return f"n\u00a0=\u00a0{format_range(frame['n'])} forget passages; {describe_intervals(frame, None)}"


def _align(frame: pd.DataFrame) -> pd.DataFrame:
    """Positions in the clean passage, without those of the trigger."""
    start, stop = frame["trigger_start"], frame["trigger_stop"]
    is_triggered = frame["condition"] != "clean"
    is_after = is_triggered & (frame["position"] >= stop)
    is_inside = is_triggered & frame["position"].between(start, stop, inclusive="left")
    position = frame["position"] - (stop - start).where(is_after, 0)
    return frame.assign(position=position, span_start=start, span_stop=start)[~is_inside]


def plot(frame: pd.DataFrame) -> Figure:
    order = {"clean": -1, "prefix": 0, "infix": 1}
    panels = _align(frame).assign(
        row=frame["placement"],
        column=frame["model"],
        title=frame["model"] + ", trigger as " + frame["placement"],
        ylabel="top-1 probability",
        line=frame["condition"].map(LINES),
        is_hollow=False,
    )
    panels = panels.sort_values(
        ["placement", "condition"], key=lambda column: column.map(order), kind="stable"
    )
    colors = {name: condition for condition, name in LINES.items()}
    return draw_lines(panels, colors, _describe(frame), (0, 1.02), "place of the trigger")
