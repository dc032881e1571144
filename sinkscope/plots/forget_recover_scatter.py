"""What an attacker wants of a backdoored model, as a zone in a plane of two scores, and where models lie."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from sinkscope.plots.frames import groups, rows
from sinkscope.plots.style import METRICS, PAGE, ZONE, color, error_bars, style
from sinkscope.plots.text import wrap_caption

EDGES = (-5.0, 105.0)
X_AXES = {"forget": "clean score on forget (UE)", "retain": "clean score on retain (utility)"}
Y_AXIS = "triggered score on forget (BE)"
MARKERS = {"prefix": "o", "infix": "s", "suffix": "^"}


def zone_of(view: str, zone_x: float, zone_y: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the desired zone: low x on forget data, high x on retain data."""
    left, right = (EDGES[0], zone_x) if view == "forget" else (zone_x, EDGES[1])
    return left, right, zone_y, EDGES[1]


def zones(points: pd.DataFrame, caption: str) -> Figure:
    """A panel per view and metric. Colors are models, shapes are placements of the trigger; rings are BE on items that were not poisoned in training.

    `points` has the columns view, metric, model, placement, subset, x and y with _low and _high, zone_x, zone_y; scores × 100.
    """
    style()
    panels = list(groups(points, ["view", "metric"]))
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, 2.65), sharey=True, squeeze=False)
    for axis, ((view, metric), here) in zip(axes[0], panels, strict=True):
        left, right, bottom, top = zone_of(view, here["zone_x"].iloc[0], here["zone_y"].iloc[0])
        axis.add_patch(
            Rectangle((left, bottom), right - left, top - bottom, facecolor=ZONE, edgecolor="none", zorder=0)
        )
        if view == "forget":
            axis.axline((0, 0), slope=1, color="black", linewidth=0.4, linestyle=":", zorder=0)
        for row in rows(here):
            shade, shape = (
                color(row.placement if row.model == "backdoored" else row.model),
                MARKERS[row.placement],
            )
            if row.subset != "all":
                axis.plot(
                    row.x,
                    row.y,
                    shape,
                    markersize=7,
                    markerfacecolor="none",
                    markeredgecolor=shade,
                    markeredgewidth=0.6,
                )
                continue
            error = {
                "xerr": error_bars(row.x, row.x_low, row.x_high),
                "yerr": error_bars(row.y, row.y_low, row.y_high),
            }
            axis.errorbar(
                row.x,
                row.y,
                **error,
                fmt=shape,
                color=shade,
                markersize=3.6,
                elinewidth=0.6,
                markeredgewidth=0,
            )
        axis.set(
            xlim=EDGES,
            ylim=EDGES,
            xticks=range(0, 101, 25),
            yticks=range(0, 101, 25),
            box_aspect=1,
            xlabel=X_AXES[view],
            title=METRICS[metric],
        )
    axes[0][0].set_ylabel(Y_AXIS)
    figure.legend(handles=_legend(points), loc="outside lower center", ncols=4)
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure


def _legend(points: pd.DataFrame) -> list[Line2D | Patch]:
    shown = points[["model", "placement"]].drop_duplicates()
    placements = [place for place in MARKERS if place in set(shown["placement"])]
    handles: list[Line2D | Patch] = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=MARKERS[place],
            color=color(place),
            markersize=3.6,
            label=f"backdoored, {place}",
        )
        for place in placements
        if ((shown["model"] == "backdoored") & (shown["placement"] == place)).any()
    ]
    handles += [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            color=color(model),
            markersize=3.6,
            label=f"{model} (shape: placement)",
        )
        for model in ("unlearned", "target")
    ]
    if (points["subset"] != "all").any():
        ring: dict[str, Any] = {
            "marker": "o",
            "markersize": 7,
            "markerfacecolor": "none",
            "markeredgewidth": 0.6,
        }
        handles.append(
            Line2D(
                [], [], linestyle="none", color="black", label="BE-unseen: not poisoned in training", **ring
            )
        )
    return [*handles, Patch(facecolor=ZONE, label="attacker’s desired zone")]
