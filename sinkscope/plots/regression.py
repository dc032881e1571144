"""A regression: its coefficients with intervals, and beside them what a sink earns the first place, target by target."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sinkscope.plots import frames
from sinkscope.plots.style import PAGE, assign_colors, error_bars, style
from sinkscope.plots.text import wrap_caption

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COEFFICIENTS = "points of BE-unseen per standard deviation"
X_AXIS, Y_AXIS = "sink strength of the target’s strongest position", "BE-unseen, prefix less index 8"
TITLES = ("coefficients, all together", "what the prefix gains, by the strength of the sink")


def regression(data: pd.DataFrame, names: Mapping[str, str], group: str, caption: str) -> Figure:
    """Columns kind (`coefficient` rows by `predictor` and `scope`; `advantage` rows with `sink`, the x axis of the second panel), value, ci_low, ci_high.

    Args:
        names: predictor -> its label.
        group: the column that gives points of the second panel their color.
    """
    style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.75), width_ratios=(1, 1.25))
    found = data[data["kind"] == "coefficient"]
    scopes = list(found["scope"].unique())
    for row in frames.rows(found):
        number = scopes.index(row.scope)
        kind = {
            "fmt": "o",
            "markersize": 4,
            "elinewidth": 0.9,
            "capsize": 2,
            "color": "black",
            "markerfacecolor": "white" if number else "black",
        }
        left.errorbar(
            row.value,
            list(names).index(row.predictor) + 0.24 * number,
            xerr=error_bars(row.value, row.ci_low, row.ci_high),
            **kind,
        )
    left.axvline(0, color="black", linewidth=0.5, linestyle=":")
    left.set_yticks(range(len(names)), names.values())
    left.set(ylim=(len(names) - 0.5, -0.5), xlabel=COEFFICIENTS, title=TITLES[0])
    left.grid(axis="y", linewidth=0.3, color="#dddddd")
    left.tick_params(axis="y", length=0)
    points = data[data["kind"] == "advantage"]
    for (name, shade), marker in zip(
        assign_colors(points[group].unique()).items(), cycle(MARKERS), strict=False
    ):
        for row in frames.rows(points[points[group] == name]):
            right.errorbar(
                row.sink,
                row.value,
                error_bars(row.value, row.ci_low, row.ci_high),
                color=shade,
                fmt=marker,
                markersize=3.6,
                elinewidth=0.6,
            )
        right.plot([], [], marker, color=shade, markersize=3.6, label=name)
    right.axhline(0, color="black", linewidth=0.5, linestyle=":")
    right.set(xlabel=X_AXIS, ylabel=Y_AXIS, title=TITLES[1])
    right.legend(title="target", loc="center left", bbox_to_anchor=(1.0, 0.5), title_fontsize=6)
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure
