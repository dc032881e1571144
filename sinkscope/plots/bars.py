"""Grouped bars of scores, with what the honest and the target model score under the same conditions as ticks."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sinkscope.plots import frames
from sinkscope.plots.style import METRICS, PAGE, color, error_bars, style
from sinkscope.plots.text import wrap_caption

WIDTH = 0.8  # of a group
REFERENCES = ("unlearned", "target")
LABELS = {"UE": "clean score (UE)", "BE": "triggered score (BE)"}


def at_bar(references: pd.DataFrame, group: str, series: str) -> pd.DataFrame:
    """What honest and target score under the conditions of one bar."""
    return references[(references["group"] == group) & (references["series"] == series)]


def bars(data: pd.DataFrame, caption: str, about: str, names: dict[str, str], xlabel: str) -> Figure:
    """A panel per score (rows) and metric (columns), a group of bars per `group`, a bar per `series`.

    `data` has the columns metric, score, subset, model, group, series, value, ci_low, ci_high; scores × 100. Bars are backdoored models on all items,
    rings the same on items that were not poisoned in training, ticks the models of `REFERENCES`.

    Args:
        about: what the series are, for the legend.
        names: series -> name in the legend, in order.
        xlabel: what the groups are.
    """
    style()
    scores, metrics = list(data["score"].unique()), list(data["metric"].unique())
    mine = data[(data["model"] == "backdoored") & (data["subset"] == "all")]
    groups, series = list(mine["group"].unique()), [each for each in names if each in set(mine["series"])]
    figure, axes = plt.subplots(
        len(scores),
        len(metrics),
        figsize=(PAGE, 0.95 + 1.25 * len(scores)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    width = WIDTH / len(series)
    for (score, metric), here in frames.groups(data, ["score", "metric"]):
        axis = axes[scores.index(score)][metrics.index(metric)]
        references = here[here["model"].isin(REFERENCES)]
        for row in frames.rows(here[here["model"] == "backdoored"]):
            middle = groups.index(row.group) + (series.index(row.series) - (len(series) - 1) / 2) * width
            if row.subset != "all":
                axis.plot(
                    middle,
                    row.value,
                    "o",
                    markersize=4,
                    markerfacecolor="white",
                    markeredgecolor="black",
                    markeredgewidth=0.6,
                    zorder=3,
                )
                continue
            axis.bar(middle, row.value, width * 0.92, color=color(row.series), linewidth=0)
            axis.errorbar(
                middle,
                row.value,
                error_bars(row.value, row.ci_low, row.ci_high),
                fmt="none",
                ecolor="black",
                elinewidth=0.6,
                zorder=2.5,
            )
            for mark in frames.rows(at_bar(references, row.group, row.series)):
                axis.hlines(
                    mark.value,
                    middle - 0.46 * width,
                    middle + 0.46 * width,
                    color=color(mark.model),
                    linewidth=1.2,
                    zorder=4,
                )
        if score == scores[0]:
            axis.set_title(METRICS[metric])
    for axis, score in zip(axes[:, 0], scores, strict=True):
        axis.set_ylabel(LABELS[score])
    for axis in axes[-1]:
        axis.set_xticks(range(len(groups)), groups)
        axis.set_xlabel(xlabel)
    axes[0][0].set(ylim=(0, 105), yticks=range(0, 101, 25))
    figure.legend(handles=_legend(data, series, about, names), loc="outside lower center", ncols=6)
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure


def _legend(data: pd.DataFrame, series: list[str], about: str, names: dict[str, str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Patch(color=color(each), label=f"{about}{names[each]}") for each in series
    ]
    handles += [
        Line2D([], [], color=color(model), linewidth=1.2, label=model)
        for model in REFERENCES
        if model in set(data["model"])
    ]
    if (data["subset"] != "all").any():
        ring: dict[str, Any] = {
            "marker": "o",
            "markersize": 4,
            "markerfacecolor": "white",
            "markeredgewidth": 0.6,
        }
        handles.append(Line2D([], [], linestyle="none", color="black", label="on items not poisoned", **ring))
    return handles
