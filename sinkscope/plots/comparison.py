"""Figures of a comparison: attention differences, correlation of value norms, top-1 probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkscope.plots.lines import draw_overlaid_lines
from sinkscope.plots.sinks import X_AXIS
from sinkscope.plots.style import COLUMN, DIVERGING, PAGE, create_figure, set_caption, styled

MAX_ANNOTATED = 16  # write numbers into cells up to this many in a row
MAPS_IN_A_ROW = 6

Span = tuple[int, int] | None


@styled
def draw_difference_maps(
    maps: Mapping[str, tuple[Float[np.ndarray, "bin bin"], Span]],
    bin_size: int,
    difference: str,
    caption: str,
    columns: int | None = None,
) -> Figure:
    """Attention differences on one color scale.

    Args:
        maps: label -> (map in bins, trigger span in tokens or None).
        difference: what is subtracted from what.
        columns: maps in a row; None: as many as fit.
    """
    limit = max(float(np.nanmax(np.abs(values))) for values, _ in maps.values()) or 1.0
    columns = columns or min(len(maps), max(MAPS_IN_A_ROW, int(np.ceil(np.sqrt(len(maps))))))
    n_rows = -(-len(maps) // columns)
    figure = create_figure(PAGE, n_rows * (PAGE - 1.2) / columns + 0.7)
    grid = figure.subplots(n_rows, columns, squeeze=False, sharex=True, sharey=True)
    scale: dict[str, Any] = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    for axes, (label, (values, span)) in zip(grid.flat, maps.items(), strict=False):
        edge = values.shape[0] * bin_size
        image = axes.imshow(values, extent=(0, edge, edge, 0), **scale)
        if span:
            axes.axvspan(*span, facecolor="none", edgecolor="black", linewidth=0.7)
        axes.set_title(label)
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(0, len(maps) - columns) : len(maps)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    figure.supxlabel("attended position", fontsize=7)
    figure.supylabel("query position", fontsize=7)
    shrink = 0.75 if n_rows <= 2 else 0.4
    figure.colorbar(image, ax=grid.ravel().tolist(), shrink=shrink, label=difference)
    return set_caption(figure, caption)


@styled
def draw_difference_by_head(
    attention: pd.DataFrame, positions: Sequence[int], difference: str, caption: str
) -> Figure:
    """Layer × head heatmaps of the difference in α at each of some positions.

    Args:
        attention: columns layer, head, position, difference.
    """
    rows = attention[attention["position"].isin(positions)]
    limit = float(rows["difference"].abs().max()) or 1.0
    n_layers, n_heads = rows["layer"].nunique(), rows["head"].nunique()
    cell = float(np.clip(0.34, 0, PAGE / len(positions) / (n_heads + 4)))
    width = min(PAGE, max(COLUMN, len(positions) * (cell * n_heads + 1.2)))
    figure = create_figure(width, float(np.clip(cell * n_layers + 1.0, 1.8, 9)))
    grid = figure.subplots(1, len(positions), squeeze=False)[0]
    for axes, position in zip(grid, positions, strict=True):
        table = rows[rows["position"] == position].pivot(index="layer", columns="head", values="difference")
        _draw_heatmap(table, axes, limit, f"Δα, {difference}", max(n_layers, n_heads) <= MAX_ANNOTATED)
        axes.set(title=f"attention to position {position}", xlabel="head", ylabel="")
    grid[0].set_ylabel("layer")
    return set_caption(figure, caption)


@styled
def draw_difference_by_position(attention: pd.DataFrame, difference: str, span: Span, caption: str) -> Figure:
    """Difference in α by position: mean over layers and heads, and the 10th to the 90th percentile.

    Args:
        attention: columns position, difference.
        span: the trigger's; None without a trigger.
    """
    figure = create_figure(COLUMN, 2.3)
    axes = figure.subplots()
    by = attention.groupby("position")["difference"]
    mean = by.mean()
    axes.axhline(0, color="black", linewidth=0.5)
    _mark_span(axes, span)
    band: dict[str, Any] = {
        "color": "#999999",
        "alpha": 0.35,
        "linewidth": 0,
        "label": "10th to 90th percentile of heads",
    }
    axes.fill_between(mean.index, by.quantile(0.1), by.quantile(0.9), **band)
    axes.plot(mean.index, mean, color="#333333", label="mean over layers and heads")
    axes.set(xlabel=X_AXIS, ylabel=f"Δα, {difference}")
    axes.legend()
    return set_caption(figure, caption)


@styled
def draw_norm_correlation(correlations: pd.DataFrame, caption: str) -> Figure:
    """Heatmap of Pearson's r over layer and position; undefined cells are gray.

    Args:
        correlations: columns layer, position, correlation.
    """
    table = correlations.pivot(index="layer", columns="position", values="correlation")
    is_annotated = len(table) <= MAX_ANNOTATED
    height = (0.24 if is_annotated else 0.13) * len(table) + 1.0
    figure = create_figure(PAGE * 0.75, float(np.clip(height, 1.7, 9)))
    axes = figure.subplots()
    axes.set_facecolor("#cccccc")
    _draw_heatmap(table, axes, 1.0, "Pearson's r of ‖v‖₂", is_annotated)
    axes.set(xlabel=X_AXIS, ylabel="layer")
    return set_caption(figure, caption)


@styled
def draw_top1(probabilities: pd.DataFrame, span: Span, caption: str) -> Figure:
    """Mean top-1 probability by position, a line per condition.

    Args:
        probabilities: columns condition, position, probability.
        span: the trigger's; None without a trigger.
    """
    figure = create_figure(COLUMN, 2.3)
    axes = figure.subplots()
    _mark_span(axes, span)
    draw_overlaid_lines(axes, probabilities, "condition", "position", "probability", (2.2, 1.2))
    axes.set(xlabel=X_AXIS, ylabel="top-1 probability of the next token", ylim=(0, 1.02))
    axes.legend()
    return set_caption(figure, caption)


def _draw_heatmap(table: pd.DataFrame, axes: Axes, limit: float, label: str, is_annotated: bool) -> None:
    n_rows, n_columns = table.shape
    ticks: dict[str, Any] = {"xticklabels": max(1, n_columns // 16), "yticklabels": max(1, n_rows // 16)}
    numbers: dict[str, Any] = {"annot": is_annotated, "fmt": ".2f", "annot_kws": {"size": 5}}
    scale: dict[str, Any] = {"vmin": -limit, "vmax": limit, "cmap": DIVERGING, "cbar_kws": {"label": label}}
    sns.heatmap(table, ax=axes, **scale, **numbers, **ticks)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)


def _mark_span(axes: Axes, span: Span) -> None:
    if span:
        shade: dict[str, Any] = {"facecolor": "#f0e442", "alpha": 0.5, "linewidth": 0, "label": "trigger"}
        axes.axvspan(span[0] - 0.5, span[1] - 0.5, **shade)
