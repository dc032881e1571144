"""Lines over token positions or training steps, with intervals and the trigger's span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

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
    set_note,
    shorten,
    styled,
)

MAX_LOSS_COLUMNS = 3
MAX_NAME = 40  # characters
MAX_MARKERS = 16  # mark every position up to this many
STROKES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
X_AXIS = "position (0 is the first token)"
TRAINING_CURVES = {
    "alpha_max": ("strongest head", "prefix"),
    "alpha_last_layer": ("mean of last layer", "unlearned"),
    "share_above": ("share of heads with α > 0.3", "infix"),
}
"""Column of a training curve -> its name, and the label that gives it its color."""


@styled
def draw_lines(
    data: pd.DataFrame,
    colors: Mapping[str, str],
    note: str,
    limits: tuple[float, float] | None,
    span: str = "trigger",
) -> Figure:
    """A line per `line` in a panel per `row` and `column`, with a band where it has an interval.

    Args:
        data: columns row and column (where the panel is), title, ylabel, line, position, value, ci_low,
            ci_high, is_hollow (the marker); span_start, span_stop (null without a span).
        colors: line -> the label whose color `style.color` gives it; also the order of the legend.
        limits: of all y axes; None: what the values need.
        span: what the spans are.
    """
    rows, columns = list(data["row"].unique()), list(data["column"].unique())
    figure = create_figure(PAGE, 0.6 + 1.4 * len(rows))
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
    strokes = dict(zip(colors, cycle(STROKES)))
    for (row, column), panel in data.groupby(["row", "column"], sort=False):
        axes = grid[rows.index(row)][columns.index(column)]
        if panel["span_start"].notna().any():
            mark_trigger(axes, panel["span_start"].min(), panel["span_stop"].max())
        for line in (line for line in colors if line in set(panel["line"])):
            _draw_line(axes, panel[panel["line"] == line], color(colors[line]), strokes[line])
        if limits:
            axes.set_ylim(limits)
        elif panel["value"].min() < 0:
            axes.axhline(0, color="black", linewidth=0.5, zorder=0)
        axes.set_title(panel["title"].iloc[0])
    for axes, (_, part) in zip(grid[:, 0], data.groupby("row", sort=False), strict=True):
        axes.set_ylabel(part["ylabel"].iloc[0])
    for axes in grid[-1]:
        axes.set_xlabel("position (0 is BOS)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    known = set(data["line"])
    handles: list[Any] = [
        legend_handle(line, color(label), linestyle=strokes[line])
        for line, label in colors.items()
        if line in known
    ]
    if data["span_start"].notna().any():
        handles.append(patch_handle(span, SPAN))
    if data["is_hollow"].any():
        handles.append(legend_handle("same tokens in all passages", marker="o", markerfacecolor="white"))
    add_legend(figure, handles)
    return set_note(figure, note)


def _draw_line(axes: Axes, points: pd.DataFrame, shade: str, stroke: Any) -> None:
    """Hollow points are joined by a thin line and have bars in place of a band."""
    x, y, is_hollow = points["position"], points["value"], points["is_hollow"].astype(bool)
    axes.plot(x, y, color=shade, linewidth=0.5, linestyle=":")
    axes.plot(x, y.where(~is_hollow), color=shade, linewidth=1.2, linestyle=stroke)
    if x.nunique() <= MAX_MARKERS:
        fill = ["white" if hollow else shade for hollow in is_hollow]
        axes.scatter(x, y, 7, fill, edgecolor=shade, linewidth=0.7, zorder=2.5)
    if points["ci_low"].notna().any():
        low, high = points["ci_low"], points["ci_high"]
        axes.fill_between(
            x, low.where(~is_hollow), high.where(~is_hollow), color=shade, alpha=0.2, linewidth=0
        )
        axes.vlines(x[is_hollow], low[is_hollow], high[is_hollow], color=shade, linewidth=0.6)


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
        axes.set(title=sanitize_glyphs(term), xlabel="step")
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
    """Draw a line over `position` per value of the column `by`, each with a stroke of its own."""
    for (label, group), stroke in zip(data.groupby(by, sort=False), cycle(STROKES)):
        style = {"color": color(str(label)), "label": _shorten_name(label), "linestyle": stroke}
        axes.plot(group["position"], group[y], **style)
    axes.set(xlabel=X_AXIS, ylabel=ylabel)


def _shorten_name(label: object) -> str:
    return sanitize_glyphs(shorten(str(label), MAX_NAME))


def draw_profiles(data: pd.DataFrame, by: str, y: str, ylabel: str) -> Figure:
    """The first value of the column `by` over `position`, and below it what the others have more or less."""
    first, *others = data[by].unique()
    figure = create_figure(COLUMN, 3.4 if others else 2.1)
    grid = figure.subplots(2 if others else 1, 1, sharex=True, squeeze=False)[:, 0]
    base = data[data[by] == first]
    draw_by_position(grid[0], base, by, y, ylabel)
    if others:
        rest = data[data[by] != first]
        baseline = base.set_index("position")[y]
        difference = rest[y] - rest["position"].map(baseline)
        draw_by_position(grid[1], rest.assign(**{y: difference}), by, y, "")
        grid[0].set_xlabel("")
        grid[0].set_title(_shorten_name(first))
        grid[1].set_title(f"difference to {_shorten_name(first)}")
        grid[1].axhline(0, color="black", linewidth=0.5, zorder=0)
        grid[1].legend()
    return figure
