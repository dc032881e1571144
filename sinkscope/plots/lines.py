"""Curves over token positions in a grid of panels, with intervals and the trigger's place."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sinkscope.plots.frames import groups
from sinkscope.plots.style import PAGE, SPAN, color, style
from sinkscope.plots.text import wrap_caption

MARKED = 16  # show a marker at every position up to this many
X_AXIS = "position (0 is BOS)"


def curves(
    data: pd.DataFrame, shades: Mapping[str, str], caption: str, limits: tuple[float, float] | None
) -> Figure:
    """A line per `line` in a panel per `row` and `column`, a band where it has an interval, the trigger's span shaded. One y axis per row of panels.

    Args:
        data: columns row (also the label of its y axis), column, line, position, value, ci_low, ci_high, hollow (the marker); trigger_start, trigger_stop
            (null without one).
        shades: line -> what `style.color` knows it as; also the order of the legend.
        limits: of all y axes; None: what the numbers need.
    """
    style()
    rows, columns = list(data["row"].unique()), list(data["column"].unique())
    size = (PAGE, 0.85 + 1.3 * len(rows))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=size, sharex=True, sharey="row", squeeze=False
    )
    for (row, column), here in groups(data, ["row", "column"]):
        axis = axes[rows.index(row)][columns.index(column)]
        if here["trigger_start"].notna().any():
            axis.axvspan(
                here["trigger_start"].min() - 0.5,
                here["trigger_stop"].max() - 0.5,
                facecolor=SPAN,
                linewidth=0,
                zorder=0,
            )
        lines = [line for line in shades if line in set(here["line"])]
        for rank, line in enumerate(lines):
            points, shade = here[here["line"] == line], color(shades[line])
            width = 0.8 + 0.6 * (
                len(lines) - 1 - rank
            )  # later lines are thinner, so that equal curves stay visible
            axis.plot(points["position"], points["value"], color=shade, linewidth=width)
            if here["position"].nunique() <= MARKED:
                fill = ["white" if hollow else shade for hollow in points["hollow"]]
                axis.scatter(
                    points["position"],
                    points["value"],
                    s=4 + 4 * width,
                    color=fill,
                    edgecolor=shade,
                    linewidth=0.7,
                    zorder=2.5,
                )
            if points["ci_low"].notna().any():
                axis.fill_between(
                    points["position"],
                    points["ci_low"],
                    points["ci_high"],
                    color=shade,
                    alpha=0.2,
                    linewidth=0,
                )
        if limits:
            axis.set_ylim(limits)
        if row == rows[0]:
            axis.set_title(column)
    for axis, row in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(row)
    for axis in axes[-1]:
        axis.set_xlabel(X_AXIS)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=color(shade), label=line)
        for line, shade in shades.items()
        if line in set(data["line"])
    ]
    if data["trigger_start"].notna().any():
        handles.append(Patch(facecolor=SPAN, label="trigger"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure
