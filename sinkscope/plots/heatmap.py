"""Heatmaps of scores with numbers in their cells, side by side on one scale, with a strip of attention under each if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sinkscope.plots import frames
from sinkscope.plots.style import MATCH, PAGE, SEQUENTIAL, SHADE, style
from sinkscope.plots.text import wrap_caption

CELL = 0.21  # inches, the height of a row
NUMBERS = 5.5  # pt
SCORES = Normalize(0, 100)
ALPHA = "α"


def labels_of(data: pd.DataFrame, strips: pd.DataFrame | None) -> tuple[list[str], list[str]]:
    """What stands on the x and on the y axis of one panel, in order; a strip may have more on its x axis."""
    xs = list(dict.fromkeys([*(strips["x"] if strips is not None else ()), *data["x"]]))
    return xs, list(data["y"].unique())


def heatmaps(
    data: pd.DataFrame, caption: str, ylabel: str, *, columns: int, strips: pd.DataFrame | None = None
) -> Figure:
    """A heatmap per `panel`, scores from 0 to 100.

    Args:
        data: columns panel, xlabel (of its x axis), x and y (labels, in order), value, outlined.
        columns: panels in a row.
        strips: attention under the panels, a shade that goes with its square root: columns panel, x, value.
    """
    style()
    names = list(data["panel"].unique())
    down, parts = -(-len(names) // columns), 1 if strips is None else 2
    tall = data.groupby("panel")["y"].nunique().max() * CELL
    size = (PAGE, 0.7 + down * (tall + (0.62 if strips is None else 0.62 + CELL)))
    figure, grid = plt.subplots(
        down * parts, columns, figsize=size, height_ratios=[tall, CELL][:parts] * down, squeeze=False
    )
    for number in range(down * columns):
        above, below = (
            grid[number // columns * parts][number % columns],
            grid[number // columns * parts + parts - 1][number % columns],
        )
        if number >= len(names):
            above.set_visible(False)
            below.set_visible(False)
            continue
        here = data[data["panel"] == names[number]]
        under = None if strips is None else strips[strips["panel"] == names[number]]
        xs, ys = labels_of(here, under)
        cells(above, here, xs, ys, SEQUENTIAL, SCORES, whole)
        above.set(title=names[number], ylabel=ylabel if number % columns == 0 else "")
        if under is not None:
            above.tick_params(labelbottom=False)
            assert strips is not None
            cells(
                below,
                under.assign(y=ALPHA, outlined=False),
                xs,
                [ALPHA],
                SHADE,
                attention_scale(strips["value"]),
                share,
            )
        below.set_xlabel(here["xlabel"].iloc[0])
    scales = (
        [(SCORES, SEQUENTIAL, "score")]
        if strips is None
        else [(SCORES, SEQUENTIAL, "score"), (attention_scale(strips["value"]), SHADE, ALPHA)]
    )
    for rows, (scale, shades, label) in zip(np.array_split(grid, len(scales)), scales, strict=True):
        figure.colorbar(
            ScalarMappable(scale, shades),
            ax=rows.ravel().tolist(),
            label=label,
            pad=0.01,
            aspect=24 / len(scales),
            shrink=0.8,
        )
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure


def whole(value: float) -> str:
    """A score in a cell."""
    return f"{value:.0f}"


def share(value: float) -> str:
    """A share in a cell: without its 0, which there is no room for."""
    return f"{value:.2f}".removeprefix("0")


def attention_scale(values: pd.Series) -> Normalize:
    """From nothing to the strongest, with the square root, so that weak attention shows beside a sink."""
    return PowerNorm(0.5, 0, float(values.max()))


def cells(
    axis: plt.Axes,
    data: pd.DataFrame,
    xs: Sequence[str],
    ys: Sequence[str],
    shades: str,
    scale: Normalize,
    text: Callable[[float], str],
) -> None:
    """One heatmap: x, y, value, outlined. Numbers are black on light cells and white on dark ones; what was not measured stays empty."""
    colors = plt.get_cmap(shades)
    for row in frames.rows(data[data["value"].notna()]):
        left, top = xs.index(row.x) - 0.5, ys.index(row.y) - 0.5
        shade = colors(scale(row.value))
        axis.add_patch(Rectangle((left, top), 1, 1, facecolor=shade, edgecolor="white", linewidth=0.3))
        if row.outlined:
            axis.add_patch(
                Rectangle(
                    (left + 0.05, top + 0.05),
                    0.9,
                    0.9,
                    facecolor="none",
                    edgecolor=MATCH,
                    linewidth=1.1,
                    zorder=3,
                )
            )
        light = np.dot(shade[:3], (0.299, 0.587, 0.114)) > 0.5
        axis.text(
            left + 0.5,
            top + 0.5,
            text(row.value),
            fontsize=NUMBERS,
            ha="center",
            va="center_baseline",
            color="black" if light else "white",
        )
    axis.set(xlim=(-0.5, len(xs) - 0.5), ylim=(len(ys) - 0.5, -0.5))
    axis.set_xticks(range(len(xs)), xs)
    axis.set_yticks(range(len(ys)), ys)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
