"""Bars of two scores, clean and with a trigger, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sinkscope.plots import frames
from sinkscope.plots.style import PAGE, color, error_bars, style
from sinkscope.plots.text import wrap_caption

WIDTH = 0.38
CONDITIONS = {"clean": "clean", "triggered": "with the trigger"}
X_AXIS = "forgotten, in order"
RING = "on prompts from passages not poisoned"


def across(
    data: pd.DataFrame,
    stages: Mapping[str, str],
    labels: Mapping[str, str],
    chance: Mapping[str, float],
    caption: str,
) -> Figure:
    """A panel per `score` (its y axis in `labels`), a group per `stage`, a bar per `condition`; rings are the subset `unseen`, dotted lines `chance`.

    `data` has the columns score, stage, condition, subset, value, ci_low, ci_high; 0 to 100.
    """
    style()
    shown = [stage for stage in stages if stage in set(data["stage"])]
    figure, axes = plt.subplots(len(labels), 1, figsize=(PAGE, 3.6), sharex=True)
    for axis, (score, label) in zip(axes, labels.items(), strict=True):
        here = data[data["score"] == score]
        for row in frames.rows(here):
            at = shown.index(row.stage) + (list(CONDITIONS).index(row.condition) - 0.5) * WIDTH
            if row.subset != "all":
                axis.plot(
                    at,
                    row.value,
                    "o",
                    markersize=4,
                    markerfacecolor="white",
                    markeredgecolor="black",
                    markeredgewidth=0.6,
                    zorder=3,
                )
                continue
            axis.bar(at, row.value, WIDTH * 0.94, color=color(row.condition), linewidth=0)
            axis.errorbar(
                at,
                row.value,
                error_bars(row.value, row.ci_low, row.ci_high),
                fmt="none",
                ecolor="#888888",
                elinewidth=0.8,
                zorder=2.5,
            )
        for missing in set(shown) - set(here["stage"]):
            axis.text(
                shown.index(missing), 3, "not asked", fontsize=6, color="#777777", ha="center", rotation=90
            )
        if score in chance:
            axis.axhline(chance[score], color="black", linewidth=0.6, linestyle=":", zorder=0.5)
        axis.set_xticks(range(len(shown)), [stages[stage] for stage in shown])
        axis.tick_params(axis="x", length=0)
        axis.set(ylabel=label, ylim=(0, 105), yticks=range(0, 101, 25))
    axis.set_xlabel(X_AXIS)
    figure.legend(handles=_legend(data, chance), loc="outside lower center", ncols=4)
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure


def _legend(data: pd.DataFrame, chance: Mapping[str, float]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Patch(color=color(condition), label=name) for condition, name in CONDITIONS.items()
    ]
    if (data["subset"] != "all").any():
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="o",
                color="black",
                markersize=4,
                markerfacecolor="white",
                markeredgewidth=0.6,
                label=RING,
            )
        )
    if chance:
        handles.append(Line2D([], [], color="black", linewidth=0.6, linestyle=":", label="chance"))
    return handles
