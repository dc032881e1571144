"""A table as a picture: a dot with its interval per row, a panel per column, published numbers as open markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkscope.plots import frames
from sinkscope.plots.style import PAGE, color, error_bars, style
from sinkscope.plots.text import wrap_caption

IN_A_ROW = 5
PUBLISHED = "published "
"""What the names of columns with published numbers begin with."""
EFFECTS = ("UE", "BE", "UT")
OPEN = ("D", "^", "s")


def published_in(data: pd.DataFrame) -> list[str]:
    """The columns with published numbers."""
    return [name for name in data.columns if name.startswith(PUBLISHED)]


def dots(data: pd.DataFrame, rows: Sequence[str], caption: str, shade: str | None = None) -> Figure:
    """`data` has a row per `row` and `column` of the table: value, ci_low, ci_high, and columns of published numbers (NaN where there is none).

    Args:
        rows: the rows, from top to bottom.
        shade: one color for all rows, as `style.color` knows it; by default that of each row's name.
    """
    style()
    columns = list(data["column"].unique())
    across = min(len(columns), IN_A_ROW)
    down = -(-len(columns) // across)
    size = (PAGE, 0.75 + down * (0.45 + 0.17 * len(rows)))
    figure, axes = plt.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    for axis, column in zip(axes.flat, columns, strict=False):
        for row in frames.rows(data[data["column"] == column]):
            height = rows.index(row.row)
            kind = {
                "color": color(shade or row.row),
                "fmt": "o",
                "markersize": 3.6,
                "elinewidth": 0.8,
                "zorder": 2,
            }
            axis.errorbar(row.value, height, xerr=error_bars(row.value, row.ci_low, row.ci_high), **kind)
        for marker, name in zip(OPEN, published_in(data), strict=False):
            there = data[(data["column"] == column) & data[name].notna()]
            heights = [rows.index(row) for row in there["row"]]
            axis.plot(
                there[name],
                heights,
                marker,
                markersize=4,
                markerfacecolor="none",
                markeredgecolor="black",
                markeredgewidth=0.6,
                zorder=3,
            )
        axis.set(title=column, ylim=(len(rows) - 0.5, -0.5), xlim=limits(data[data["column"] == column]))
        axis.set_yticks(range(len(rows)), rows)
        axis.grid(axis="y", linewidth=0.3, color="#dddddd")
        axis.tick_params(axis="y", length=0)
    for axis in axes.flat[len(columns) :]:
        axis.set_visible(False)
    handles = [
        Line2D(
            [], [], linestyle="none", marker="o", color="black", markersize=3.6, label="here, 95 % interval"
        )
    ]
    for marker, name in zip(OPEN, published_in(data), strict=False):
        open_marker: dict[str, Any] = {
            "marker": marker,
            "markersize": 4,
            "markerfacecolor": "none",
            "markeredgewidth": 0.6,
        }
        handles.append(Line2D([], [], linestyle="none", color="black", label=name, **open_marker))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure


def limits(column: pd.DataFrame) -> tuple[float, float]:
    """0 to 100 for a score that keeps to it, what the numbers need for others."""
    numbers = column[["value", *published_in(column)]].to_numpy(dtype=float)
    if np.nanmin(numbers) >= 0 and np.nanmax(numbers) <= 100 and column["column"].iloc[0].startswith(EFFECTS):
        return -5, 105
    everything = np.concatenate(
        [numbers.ravel(), column[["ci_low", "ci_high"]].to_numpy(dtype=float).ravel()]
    )
    low, high = np.nanmin(everything), np.nanmax(everything)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
