"""A regression: its coefficients with intervals, and beside them the outcome against the first predictor, group by group."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sinkscope.plots import frames
from sinkscope.plots.style import PAGE, gaps, in_order, style
from sinkscope.plots.text import caption as wrapped

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COEFFICIENTS = "points of BE-unseen per standard deviation"
X_AXIS, Y_AXIS = "sink strength α of the trained index", "BE-unseen at the trained index"
TITLES = ("coefficients, all together", "trigger asked where it was trained")


def regression(data: pd.DataFrame, names: Mapping[str, str], caption: str) -> Figure:
    """Columns kind (`coefficient` rows by `predictor`; `matched` rows by `target`, with the predictors and `hollow`, of the marker, as columns), value, ci_low,
    ci_high.

    Args:
        names: predictor -> its label; the first is the x axis of the second panel.
    """
    style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.75), width_ratios=(1, 1.25))
    found = data[data["kind"] == "coefficient"]
    for row in frames.rows(found):
        kind = {"fmt": "o", "markersize": 4, "elinewidth": 0.9, "capsize": 2}
        left.errorbar(row.value, list(names).index(row.predictor), xerr=gaps(row.value, row.ci_low, row.ci_high), color="black", **kind)
    left.axvline(0, color="black", linewidth=0.5, linestyle=":")
    left.set_yticks(range(len(names)), names.values())
    left.set(ylim=(len(names) - 0.5, -0.5), xlabel=COEFFICIENTS, title=TITLES[0])
    left.grid(axis="y", linewidth=0.3, color="#dddddd")
    left.tick_params(axis="y", length=0)
    points, first = data[data["kind"] == "matched"], next(iter(names))
    shades = in_order(points["target"].unique())
    for (target, shade), marker in zip(shades.items(), MARKERS, strict=False):
        for row in frames.rows(points[points["target"] == target]):
            error = gaps(row.value, row.ci_low, row.ci_high)
            kind = {"fmt": marker, "markersize": 3.6, "elinewidth": 0.6, "markeredgewidth": 0.7, "markerfacecolor": "white" if row.hollow else shade}
            right.errorbar(getattr(row, first), row.value, error, color=shade, **kind)
        right.plot([], [], marker, color=shade, markersize=3.6, label=target)
    right.set(xlabel=X_AXIS, ylabel=Y_AXIS, ylim=(-4, 104), yticks=range(0, 101, 25), title=TITLES[1])
    right.legend(title="target", loc="center left", bbox_to_anchor=(1.0, 0.5), title_fontsize=6)
    figure.suptitle(wrapped(caption, PAGE), fontsize=7)
    return figure
