"""Heatmaps of scores with numbers in their cells, each with an optional row of attention below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sinkscope.plots.style import (
    MATCH,
    PAGE,
    SEQUENTIAL,
    SHADE,
    create_figure,
    iterate_rows,
    set_caption,
    styled,
)

CELL = 0.21  # inches, the height of a row
NUMBERS = 5.5  # pt
SCORES = Normalize(0, 100)
ALPHA = "α"


@styled
def draw_heatmaps(
    data: pd.DataFrame, caption: str, ylabel: str, *, columns: int, attention: pd.DataFrame | None = None
) -> Figure:
    """A heatmap per `panel`, scores from 0 to 100.

    Args:
        data: columns panel, xlabel (of its x axis), x and y (labels, in order), value, is_outlined.
        columns: panels in a row.
        attention: a row of cells below each panel, colored by the square root: columns panel, x, value.
    """
    panels = list(data["panel"].unique())
    n_rows = -(-len(panels) // columns)
    height = data.groupby("panel")["y"].nunique().max() * CELL
    ratios = [height] if attention is None else [height, CELL]
    figure = create_figure(PAGE, 0.7 + n_rows * (sum(ratios) + 0.62))
    grid = figure.subplots(n_rows * len(ratios), columns, height_ratios=ratios * n_rows, squeeze=False)
    for number in range(n_rows * columns):
        first = number // columns * len(ratios)
        cells = grid[first : first + len(ratios), number % columns]
        if number >= len(panels):
            for axes in cells:
                axes.set_visible(False)
            continue
        scores = data[data["panel"] == panels[number]]
        xs = list(scores["x"].unique())
        if attention is not None:
            strip = attention[attention["panel"] == panels[number]].assign(y=ALPHA, is_outlined=False)
            xs = list(dict.fromkeys([*strip["x"], *xs]))
            draw_cells(cells[1], strip, xs, [ALPHA], SHADE, attention_scale(attention["value"]), format_share)
        draw_cells(cells[0], scores, xs, list(scores["y"].unique()), SEQUENTIAL, SCORES, format_score)
        cells[0].set(title=panels[number], ylabel=ylabel if number % columns == 0 else "")
        cells[0].tick_params(labelbottom=attention is None)
        cells[-1].set_xlabel(scores["xlabel"].iloc[0])
    scales = [(SCORES, SEQUENTIAL, "score")]
    if attention is not None:
        scales.append((attention_scale(attention["value"]), SHADE, ALPHA))
    for axes, (scale, palette, label) in zip(np.array_split(grid, len(scales)), scales, strict=True):
        figure.colorbar(
            ScalarMappable(scale, palette),
            ax=axes.ravel().tolist(),
            label=label,
            pad=0.01,
            aspect=24 / len(scales),
            shrink=0.8,
        )
    return set_caption(figure, caption)


def format_score(value: float) -> str:
    """A score in a cell."""
    return f"{value:.0f}"


def format_share(value: float) -> str:
    """A share in a cell, without its leading 0: there is no room for it."""
    return f"{value:.2f}".removeprefix("0")


def attention_scale(values: pd.Series) -> Normalize:
    """From 0 to the maximum by the square root, so that weak attention is visible next to a sink."""
    return PowerNorm(0.5, 0, float(values.max()))


def draw_cells(  # a heatmap has two axes, a color scale and a number format
    axes: Axes,
    data: pd.DataFrame,
    xs: Sequence[str],
    ys: Sequence[str],
    palette: str,
    scale: Normalize,
    text: Callable[[float], str],
) -> None:
    """Draw one heatmap of the columns x, y, value, is_outlined. Missing values stay empty. Cell i is centered
    at i + ½."""
    grid = data.pivot(index="y", columns="x", values="value").reindex(index=list(ys), columns=list(xs))
    sns.heatmap(
        grid,
        ax=axes,
        cmap=palette,
        norm=scale,
        annot=grid.map(text),
        fmt="",
        annot_kws={"size": NUMBERS, "va": "center_baseline"},
        cbar=False,
        linewidths=0.3,
        linecolor="white",
    )
    for row in iterate_rows(data[data["is_outlined"]]):
        corner = (xs.index(row.x) + 0.05, ys.index(row.y) + 0.05)
        axes.add_patch(
            Rectangle(corner, 0.9, 0.9, facecolor="none", edgecolor=MATCH, linewidth=1.1, zorder=3)
        )
    axes.set(xlabel="", ylabel="")
    axes.set_xticks(np.arange(len(xs)) + 0.5, xs, rotation=0)
    axes.set_yticks(np.arange(len(ys)) + 0.5, ys, rotation=0)
    axes.tick_params(length=0, labelsize=NUMBERS)
