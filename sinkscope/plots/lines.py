"""Lines over token positions in a grid of panels, with intervals and the trigger's span."""

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
    legend_handle,
    patch_handle,
    set_caption,
    styled,
)
from sinkscope.plots.text import sanitize_glyphs

MAX_LOSS_COLUMNS = 3
MAX_MARKERS = 16  # mark every position up to this many


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
            span = (panel["trigger_start"].min() - 0.5, panel["trigger_stop"].max() - 0.5)
            axes.axvspan(*span, facecolor=SPAN, linewidth=0, zorder=0)
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
    named = [(line, label) for line, label in colors.items() if line in set(data["line"])]
    handles = [legend_handle(line, color(label)) for line, label in named]
    trigger = [patch_handle("trigger", SPAN)] if data["trigger_start"].notna().any() else []
    add_legend(figure, [*handles, *trigger])
    return set_caption(figure, caption)


def _draw_line(axes: Axes, points: pd.DataFrame, shade: str, width: float) -> None:
    axes.plot(points["position"], points["value"], color=shade, linewidth=width)
    if points["position"].nunique() <= MAX_MARKERS:
        fill = ["white" if hollow else shade for hollow in points["is_hollow"]]
        size = 4 + 4 * width
        axes.scatter(
            points["position"],
            points["value"],
            s=size,
            color=fill,
            edgecolor=shade,
            linewidth=0.7,
            zorder=2.5,
        )
    if points["ci_low"].notna().any():
        band = (points["position"], points["ci_low"], points["ci_high"])
        axes.fill_between(*band, color=shade, alpha=0.2, linewidth=0)


@styled
def draw_loss_curves(log: pd.DataFrame, terms: Sequence[str]) -> Figure:
    """Loss terms of an unlearning run by training step, a panel per term.

    Args:
        log: columns step and all terms; NaN at steps without a term.
    """
    n_columns = min(MAX_LOSS_COLUMNS, len(terms))
    n_rows = -(-len(terms) // n_columns)
    figure = create_figure(PAGE, 0.3 + 1.5 * n_rows)
    grid = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False)
    for axes, term in zip(grid.flat, terms, strict=False):
        known = log[log[term].notna()]
        marker = "o" if len(known) <= MAX_MARKERS else ""
        axes.plot(known["step"], known[term], color=color("NPO"), marker=marker, markersize=2.5)
        axes.set(title=sanitize_glyphs(term))
    for axes in grid.flat[len(terms) :]:
        axes.set_visible(False)
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
    names = {
        "alpha_max": ("strongest head", "prefix"),
        "alpha_last_layer": ("mean of last layer", "unlearned"),
        "share_above": ("share of heads with α > 0.3", "infix"),
    }
    for column, (label, shade) in names.items():
        axes.plot(curve["step"], curve[column], color=color(shade), label=label)
    axes.set(xlabel="training step", ylabel="attention to BOS α, or share", ylim=(0, 1), title=caption)
    figure.legend(loc="outside lower center", ncols=3, fontsize=5.5)
    return figure


def draw_overlaid_lines(
    axes: Axes, data: pd.DataFrame, by: str, x: str, y: str, widths: tuple[float, float]
) -> None:
    """A line per value of the column `by`.

    Args:
        widths: of the first line, and by how much each later one is thinner, so that equal lines stay
        visible.
    """
    for rank, (label, group) in enumerate(data.groupby(by, sort=False)):
        width = max(0.8, widths[0] - widths[1] * rank)
        name = sanitize_glyphs(str(label))
        axes.plot(group[x], group[y], color=color(str(label)), label=name, linewidth=width)
