"""Heatmaps: tables of scores with outlined cells and a row of attention, and layers by heads or positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from sinkscope.plots.style import (
    COLUMN,
    MATCH,
    PAGE,
    SEQUENTIAL,
    SHADE,
    create_figure,
    iterate_rows,
    set_note,
    styled,
)

CELL = 0.21  # inches, the height of a row
NUMBERS = 5.5  # pt
SCORES = Normalize(0, 100)
ALPHA = "α, %"
WIDE_COLUMNS = 3  # narrower panels have smaller titles and upright labels
MIN_NUMBERED = 0.22  # inches: cells of layers with numbers are wider


@styled
def draw_heatmaps(
    data: pd.DataFrame,
    note: str,
    ylabel: str,
    *,
    columns: int,
    attention: pd.DataFrame | None = None,
    apart: str = "",
) -> Figure:
    """A heatmap per `panel`, scores from 0 to 100 as numbers and colors; the first of a row has the y labels.

    Args:
        data: columns panel, xlabel (of its x axis), x and y (labels, in order), value, is_outlined; half, of
            an interval, to be written after the value (null: no interval).
        columns: panels in a row.
        attention: a row of cells below each panel, in percent, shaded by the square root: columns panel, x,
            value.
        apart: cells whose label ends with it are separated from the others by a line.
    """
    panels = list(data["panel"].unique())
    n_rows = -(-len(panels) // columns)
    height = data.groupby("panel")["y"].nunique().max() * CELL
    ratios = [height] if attention is None else [height, CELL]
    titles = 0.12 * max(panel.count("\n") for panel in panels)
    figure = create_figure(
        PAGE, 0.3 + n_rows * (sum(ratios) + titles + (0.62 if columns <= WIDE_COLUMNS else 0.82))
    )
    grid = figure.subplots(n_rows * len(ratios), columns, height_ratios=ratios * n_rows, squeeze=False)
    blocks = grid.reshape(n_rows, len(ratios), columns).transpose(0, 2, 1).reshape(-1, len(ratios))
    scale = None if attention is None else attention_scale(attention["value"])
    for number, (panel, cells) in enumerate(zip(panels, blocks, strict=False)):
        scores = data[data["panel"] == panel]
        xs, ys = list(scores["x"].unique()), list(scores["y"].unique())
        is_first = number % columns == 0
        if attention is not None and scale is not None:
            strip = attention[attention["panel"] == panel].assign(y=ALPHA, is_outlined=False)
            xs = list(dict.fromkeys([*strip["x"], *xs]))
            draw_cells(cells[1], strip, xs, [ALPHA], SHADE, scale, format_percent)
            cells[1].tick_params(labelleft=is_first)
        draw_cells(cells[0], scores, xs, ys, SEQUENTIAL, SCORES, format_score)
        if apart:
            _separate(cells[0], xs, ys, apart)
        cells[0].set_title(panel, fontsize=7 if columns <= WIDE_COLUMNS else 6)
        cells[0].set(ylabel=ylabel if is_first else "")
        cells[0].tick_params(labelbottom=attention is None, labelleft=is_first)
        cells[-1].set_xlabel(scores["xlabel"].iloc[0])
        if columns > WIDE_COLUMNS:
            cells[-1].tick_params(axis="x", labelrotation=90)
    for axes in blocks[len(panels) :].flat:
        axes.set_visible(False)
    return set_note(figure, note)


def _separate(axes: Axes, xs: Sequence[str], ys: Sequence[str], apart: str) -> None:
    """A line after the first row and column of a name."""
    for labels, line in ((xs, axes.axvline), (ys, axes.axhline)):
        for edge in (index + 1 for index, label in enumerate(labels) if label.endswith(apart)):
            line(edge, color="black", linewidth=0.9)


def format_score(value: float) -> str:
    """A score in a cell, rounded; a rounded zero has no sign."""
    return "" if pd.isna(value) else f"{round(value):d}".replace("-", "−")


def format_percent(share: float) -> str:
    """A share in a cell, in percent: there is no room for more digits."""
    return "" if pd.isna(share) else f"{100 * share:.0f}"


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
    """Draw a table of the columns x, y, value, is_outlined, and half if any; missing values stay empty.

    Cell i is centered at i + ½.
    """
    import seaborn as sns  # it imports scipy.stats, which takes seconds

    grid = data.pivot(index="y", columns="x", values="value").reindex(index=list(ys), columns=list(xs))
    texts = grid.map(text)
    if "half" in data:
        half = data.pivot(index="y", columns="x", values="half").reindex_like(grid)
        texts += half.map(lambda value: "" if pd.isna(value) else f"±{text(value)}")
    numbers = {"annot": texts, "fmt": "", "annot_kws": {"size": NUMBERS, "va": "center_baseline"}}
    sns.heatmap(
        grid, ax=axes, cmap=palette, norm=scale, cbar=False, linewidths=0.3, linecolor="white", **numbers
    )
    for row in iterate_rows(data[data["is_outlined"]]):
        corner = (xs.index(row.x) + 0.05, ys.index(row.y) + 0.05)
        outline = Rectangle(corner, 0.9, 0.9, facecolor="none", edgecolor=MATCH, linewidth=1.1, zorder=3)
        axes.add_patch(outline)
    axes.set(xlabel="", ylabel="")
    axes.set_xticks(np.arange(len(xs)) + 0.5, xs, rotation=0)
    axes.set_yticks(np.arange(len(ys)) + 0.5, ys, rotation=0)
    axes.tick_params(length=0, labelsize=NUMBERS)


def draw_layers(
    panels: Mapping[str, pd.DataFrame], palette: str, limits: tuple[float, float], label: str = ""
) -> Figure:
    """A heatmap per title of a table of layers by heads or positions; undefined cells are gray.

    The figure never exceeds a page: large models get small cells without numbers and a label at every
    second, fourth … layer and column.
    """
    n_layers, n_columns = next(iter(panels.values())).shape
    cell = min(0.34, (PAGE - 1.4) / len(panels) / n_columns, 6.5 / n_layers)
    width, height = max(1.3, cell * n_columns), max(0.8, cell * n_layers)
    figure = create_figure(max(COLUMN, len(panels) * width + 1.3), height + 0.9)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, table) in zip(grid, panels.items(), strict=True):
        image = axes.imshow(table, palette, aspect="auto", origin="lower", interpolation="nearest")
        image.set_clim(*limits)
        if cell > MIN_NUMBERED:
            _write_numbers(axes, image, table.to_numpy())
        axes.set(xticks=_ticks(n_columns, width / 0.17), yticks=_ticks(n_layers, height / 0.11))
        axes.set(title=title, xlabel=table.columns.name, facecolor="#cccccc")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    grid[0].set_ylabel("layer")
    figure.colorbar(image, ax=grid.tolist(), aspect=height / 0.08, pad=0.03, label=label)
    return figure


def _write_numbers(axes: Axes, image: AxesImage, values: Float[np.ndarray, "layer column"]) -> None:
    is_light = image.to_rgba(values)[..., :3].mean(-1) > 0.5
    for (layer, column), value in np.ndenumerate(values):
        shade = "black" if is_light[layer, column] else "white"
        text = "" if np.isnan(value) else f"{value:.2f}"
        axes.text(column, layer, text, fontsize=5, ha="center", va="center", color=shade)


def _ticks(n: int, room: float) -> range:
    """Every first, second, fourth … of n, as many as there is room for."""
    return range(0, n, 2 ** max(0, math.ceil(math.log2(n / room))))
