"""Attention by position above, and what a trigger at that position does below, on one axis."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkscope.plots import frames
from sinkscope.plots.heatmap import CELL, attention_scale, cells, share
from sinkscope.plots.style import PAGE, SHADE, color, error_bars, style
from sinkscope.plots.text import wrap_caption

MAPS = {
    "sink": "attention α to the position, target, clean passages",
    "span": "attention to the trigger standing there, target",
}
LINES = {"BE": "prefix", "UE": "clean", "unlearned BE": "unlearned"}
"""Quantity -> what `style.color` knows its line as."""
NAMES = {"BE": "BE-unseen, backdoored", "UE": "UE, backdoored", "unlearned BE": "honest, with the trigger"}
X_AXIS = "index of the trigger in training (0: BOS, where none can stand)"
BEYOND = "suffix"
"""Where a trigger is tried whose own index lies beyond a prompt."""
Y_AXIS = "ROUGE-L F1 × 100"


def position_names(data: pd.DataFrame) -> dict[float, str]:
    """Every position, and what it is called."""
    places = data[data["position"].notna()].drop_duplicates("position").sort_values("position")
    named = {
        row.position: "" if row.placement.startswith("index") else f"\n{row.placement or 'BOS'}"
        for row in frames.rows(places)
    }
    return {position: f"{position:.0f}{name}" for position, name in named.items()}


def sink_link(data: pd.DataFrame, caption: str) -> Figure:
    """Columns quantity (those of `MAPS`: by `layer`; those of `LINES`), position, placement, evaluated, value, ci_low, ci_high."""
    style()
    names = position_names(data)
    layers = sorted(data[data["quantity"] == "sink"]["layer"].unique(), key=int)
    heights = [CELL * len(layers), CELL * len(layers), 1.6]
    figure, axes = plt.subplots(3, 1, figsize=(PAGE, sum(heights) + 1.9), sharex=True, height_ratios=heights)
    for axis, (quantity, name) in zip(axes, MAPS.items(), strict=False):
        here, scale = (
            data[data["quantity"] == quantity],
            attention_scale(data[data["quantity"] == quantity]["value"]),
        )
        cells(
            axis,
            here.assign(x=here["position"].map(names), y=here["layer"], outlined=False),
            list(names.values()),
            layers,
            SHADE,
            scale,
            share,
        )
        axis.set_ylabel("layer")
        axis.set_title(name, loc="left")
        bar = figure.colorbar(ScalarMappable(scale, SHADE), ax=axis, label="share", pad=0.01, aspect=12)
        bar.ax.tick_params(labelsize=5)
    places = list(names)
    for quantity, shade in LINES.items():
        here, main = data[data["quantity"] == quantity], quantity == "BE"
        for place, mine in frames.groups(
            here.assign(there=here["evaluated"] != BEYOND), ["there"] if main else ["quantity"]
        ):
            at, fill = (
                [places.index(position) for position in mine["position"]],
                color(shade) if place[0] else "white",
            )
            axes[2].plot(
                at,
                mine["value"],
                color=color(shade),
                linewidth=1.0 if main else 0.8,
                linestyle="-" if main else "--",
                zorder=1.5,
            )
            for x, row in zip(at, frames.rows(mine if main else mine[:0]), strict=False):
                kind = {
                    "fmt": "o",
                    "markersize": 4,
                    "markerfacecolor": fill,
                    "elinewidth": 0.8,
                    "capsize": 1.5,
                    "zorder": 2,
                }
                axes[2].errorbar(
                    x, row.value, error_bars(row.value, row.ci_low, row.ci_high), color=color(shade), **kind
                )
    axes[2].set(ylabel=Y_AXIS, ylim=(-4, 104), xlabel=X_AXIS, yticks=range(0, 101, 25))
    axes[2].tick_params(axis="x", length=2)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5)
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure


def _legend() -> list[Line2D]:
    shade = color(LINES["BE"])
    dots = [
        Line2D(
            [],
            [],
            color=shade,
            marker="o",
            markersize=4,
            markerfacecolor=fill,
            label=f"{NAMES['BE']}, {where}",
        )
        for fill, where in ((shade, "asked there"), ("white", "asked as suffix"))
    ]
    return [
        *dots,
        *(
            Line2D([], [], color=color(LINES[each]), linewidth=0.8, linestyle="--", label=NAMES[each])
            for each in ("UE", "unlearned BE")
        ),
    ]
