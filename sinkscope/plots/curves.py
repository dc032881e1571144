"""Curves over token positions in a grid of panels, with intervals and the trigger's place."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sinkscope.plots.frames import groups
from sinkscope.plots.style import PAGE, SPAN, colour, style
from sinkscope.plots.text import caption as wrapped

X_AXIS = "position (0 is BOS)"


def curves(data: pd.DataFrame, shades: Mapping[str, str], caption: str, limits: tuple[float | None, float | None] = (0, None)) -> Figure:
    """A line per `line` in a panel per `row` and `column`, a band where it has an interval, the trigger's span shaded. One y axis per row of panels.

    Args:
        data: columns row (also the label of its y axis), column, line, position, value, ci_low, ci_high; trigger_start, trigger_stop (null without one).
        shades: line -> what `style.colour` knows it as; also the order of the legend.
        limits: of all y axes.
    """
    style()
    rows, columns = list(data["row"].unique()), list(data["column"].unique())
    size = (PAGE, 0.85 + 1.3 * len(rows))
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, sharex=True, sharey="row", squeeze=False)
    for (row, column), here in groups(data, ["row", "column"]):
        axis = axes[rows.index(row)][columns.index(column)]
        if here["trigger_start"].notna().any():
            axis.axvspan(here["trigger_start"].min() - 0.5, here["trigger_stop"].max() - 0.5, facecolor=SPAN, linewidth=0, zorder=0)
        markers = {"marker": "o", "markersize": 2.5} if here["position"].nunique() <= 16 else {}
        for (line,), points in groups(here, ["line"]):
            shade = colour(shades[line])
            axis.plot(points["position"], points["value"], color=shade, linewidth=0.9, **markers)
            if points["ci_low"].notna().any():
                axis.fill_between(points["position"], points["ci_low"], points["ci_high"], color=shade, alpha=0.2, linewidth=0)
        axis.set(ylim=limits)
        if row == rows[0]:
            axis.set_title(column)
    for axis, row in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(row)
    for axis in axes[-1]:
        axis.set_xlabel(X_AXIS)
    handles: list[Line2D | Patch] = [Line2D([], [], color=colour(shade), label=line) for line, shade in shades.items() if line in set(data["line"])]
    if data["trigger_start"].notna().any():
        handles.append(Patch(facecolor=SPAN, label="trigger"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    figure.suptitle(wrapped(caption, PAGE), fontsize=7)
    return figure
