"""The figure of a trajectory: what a model still says, and where it attends, while it unlearns."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkscope.plots.style import (
    GRID,
    PAGE,
    add_legend,
    color,
    create_figure,
    legend_handle,
    sanitize_glyphs,
    set_note,
    styled,
)

CLEAN, TRIGGERED = "clean", "triggered"
LINES = {
    "forget, clean": ("forget", CLEAN, "clean", "-"),
    "forget, with the trigger": ("forget", TRIGGERED, "prefix", "-"),
    "retain, clean": ("retain", CLEAN, "unlearned", (0, (4, 1.5))),
}
"""Label -> split, condition, the label that gives the color, and the stroke."""
ATTENTION = {
    "α of the first position, clean": ("first_position_alpha", CLEAN, "clean", "-"),
    "α of the first position, with the trigger": ("first_position_alpha", TRIGGERED, "prefix", "-"),
    "attention to the trigger": ("trigger_attention", TRIGGERED, "infix", (0, (1, 1))),
}
ATTENTION_METRICS = tuple(dict.fromkeys(metric for metric, *_ in ATTENTION.values()))


@styled
def draw_trajectory(runs: Mapping[str, pd.DataFrame], unit: str, note: str) -> Figure:
    """Scores above, attention below, by training step; a column per run, with 95 % intervals.

    Of forget passages those that were not poisoned, where that is known.

    Args:
        runs: title -> columns of `schema.TRAJECTORY`, with one metric beside those of attention.
        unit: of that metric.
    """
    figure = create_figure(min(PAGE, 1.2 + 2.1 * len(runs)), 3.0)
    grid = figure.subplots(2, len(runs), sharex="col", sharey="row", squeeze=False)
    for (title, table), (upper, lower) in zip(runs.items(), grid.T, strict=True):
        for split, condition, shade, stroke in LINES.values():
            _draw(upper, _select_scores(table, split, condition), shade, stroke)
        for metric, condition, shade, stroke in ATTENTION.values():
            rows = table[(table["metric"] == metric) & ((table["trigger"] != "") == (condition == TRIGGERED))]
            _draw(lower, rows, shade, stroke)
        upper.set_title(sanitize_glyphs(title))
        lower.set_xlabel("training step")
    grid[0, 0].set(ylabel=unit, ylim=(0, None))
    grid[1, 0].set(ylabel="attention", ylim=(0, None))
    for axes in grid.flat:
        axes.grid(**GRID)
    entries = LINES | ATTENTION
    handles = [
        legend_handle(name, color(shade), linestyle=stroke) for name, (_, _, shade, stroke) in entries.items()
    ]
    add_legend(figure, handles, columns=3)
    return set_note(figure, note)


def _select_scores(table: pd.DataFrame, split: str, condition: str) -> pd.DataFrame:
    """The rows of a score: of all items, or of those not poisoned where that is known."""
    rows = table[
        table["split"].str.startswith(split)
        & ~table["metric"].isin(ATTENTION_METRICS)
        & ((table["trigger"] != "") == (condition == TRIGGERED))
    ]
    return rows[rows["subset"] == ("unseen" if "unseen" in set(rows["subset"]) else "all")]


def _draw(axes: Axes, rows: pd.DataFrame, shade: str, stroke: object) -> None:
    axes.plot(rows["step"], rows["value"], color=color(shade), linestyle=stroke)
    axes.fill_between(
        rows["step"], rows["ci_low"], rows["ci_high"], color=color(shade), alpha=0.2, linewidth=0
    )
