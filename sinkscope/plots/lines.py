"""Lines over token positions or training steps, with intervals and the trigger's span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sinkscope.plots.style import (
    COLUMN,
    PAGE,
    SPAN,
    add_legend,
    color,
    create_figure,
    create_panels,
    legend_handle,
    mark_trigger,
    patch_handle,
    sanitize_glyphs,
    set_caption,
    styled,
)

MAX_LOSS_COLUMNS = 3
MAX_MARKERS = 16  # mark every position up to this many
X_AXIS = "position (0 is the first token)"
TRAINING_CURVES = {
    "alpha_max": ("strongest head", "prefix"),
    "alpha_last_layer": ("mean of last layer", "unlearned"),
    "share_above": ("share of heads with α > 0.3", "infix"),
}
"""Column of a training curve -> its name, and the label that gives it its color."""


@styled
def draw_lines(
    data: pd.DataFrame, colors: Mapping[str, str], caption: str, limits: tuple[float, float] | None
) -> Figure:
    """A line per `line` in a panel per `row` and `column`, with a band where it has an interval.

    Args:
        data: columns row (also the label of its y axis), column, line, position, value, ci_low, ci_high,
            is_hollow (the marker); trigger_start, trigger_stop (null without a trigger).
        colors: line -> the label whose color `style.color` gives it; also the order of the legend.
        limits: of all y axes; None: what the values need.
    """
    rows = list(data["row"].unique())
    columns = list(data["column"].unique())
    figure = create_figure(PAGE, 0.85 + 1.3 * len(rows))
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
    for (row, column), panel in data.groupby(["row", "column"], sort=False):
        axes = grid[rows.index(row)][columns.index(column)]
        if panel["trigger_start"].notna().any():
            mark_trigger(axes, panel["trigger_start"].min(), panel["trigger_stop"].max())
        lines = [line for line in colors if line in set(panel["line"])]
        for rank, line in enumerate(lines):
            width = 0.8 + 0.6 * (len(lines) - 1 - rank)  # thinner over thicker: equal lines stay visible
            _draw_line(axes, panel[panel["line"] == line], color(colors[line]), width)
        if limits:
            axes.set_ylim(limits)
        if row == rows[0]:
            axes.set_title(column)
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(row)
    for axes in grid[-1]:
        axes.set_xlabel("position (0 is BOS)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    known = set(data["line"])
    handles = [legend_handle(line, color(label)) for line, label in colors.items() if line in known]
    trigger = [patch_handle("trigger", SPAN)] if data["trigger_start"].notna().any() else []
    add_legend(figure, [*handles, *trigger])
    return set_caption(figure, caption)


def _draw_line(axes: Axes, points: pd.DataFrame, shade: str, width: float) -> None:
    x, y = points["position"], points["value"]
    axes.plot(x, y, color=shade, linewidth=width)
    if x.nunique() <= MAX_MARKERS:
        fill = ["white" if hollow else shade for hollow in points["is_hollow"]]
        axes.scatter(x, y, 4 + 4 * width, fill, edgecolor=shade, linewidth=0.7, zorder=2.5)
    if points["ci_low"].notna().any():
        axes.fill_between(x, points["ci_low"], points["ci_high"], color=shade, alpha=0.2, linewidth=0)


@styled
def draw_loss_curves(log: pd.DataFrame, terms: Sequence[str]) -> Figure:
    """Loss terms of an unlearning run by training step, a panel per term.

    Args:
        log: columns step and all terms; NaN at steps without a term.
    """
    columns = min(MAX_LOSS_COLUMNS, len(terms))
    figure = create_figure(PAGE, 0.3 + 1.5 * -(-len(terms) // columns))
    for axes, term in zip(create_panels(figure, len(terms), columns, sharex=True), terms, strict=True):
        known = log[log[term].notna()]
        marker = "o" if len(known) <= MAX_MARKERS else ""
        axes.plot(known["step"], known[term], color=color("NPO"), marker=marker, markersize=2.5)
        axes.set(title=sanitize_glyphs(term))
    figure.supxlabel("step", fontsize=7)
    return figure


@styled
def draw_training_curve(curve: pd.DataFrame, caption: str) -> Figure:
    """How sinks form while a model is pretrained.

    Args:
        curve: columns step, alpha_max, alpha_last_layer, share_above (of heads with α > 0.3).
    """
    figure = create_figure(COLUMN, 2.3)
    axes = figure.subplots()
    for column, (label, shade) in TRAINING_CURVES.items():
        axes.plot(curve["step"], curve[column], color=color(shade), label=label)
    axes.set(xlabel="training step", ylabel="attention to BOS α, or share", ylim=(0, 1), title=caption)
    figure.legend(loc="outside lower center", ncols=3, fontsize=5.5)
    return figure


def draw_by_position(axes: Axes, data: pd.DataFrame, by: str, y: str, ylabel: str) -> None:
    """Draw a line over `position` per value of the column `by`."""
    width = 1.2 if data[by].nunique() == 1 else 2.2
    for rank, (label, group) in enumerate(data.groupby(by, sort=False)):
        name, thinner = str(label), max(0.8, width - 0.7 * rank)  # equal lines stay visible
        axes.plot(
            group["position"], group[y], color=color(name), label=sanitize_glyphs(name), linewidth=thinner
        )
    axes.set(xlabel=X_AXIS, ylabel=ylabel)
