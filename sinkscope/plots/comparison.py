"""Pictures of a comparison: attention differences as maps, by head and by position; correlation of value norms; top-1 probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.figure import Figure

from sinkscope.plots.style import COLUMN, DIVERGING, PAGE, color, style
from sinkscope.plots.text import wrap_caption

ANNOTATED = 16  # write numbers into cells up to this many a row
IN_A_ROW = 6

Span = tuple[int, int] | None


def draw_difference_maps(
    maps: Mapping[str, tuple[Float[np.ndarray, "bin bin"], Span]],
    bin_size: int,
    difference: str,
    caption: str,
    columns: int | None = None,
) -> Figure:
    """Attention differences side by side, on one scale; `maps[label]` is (map in bins, trigger span in tokens or None), `difference` says what minus what.

    `columns`: maps in a row; by default as many as fit.
    """
    style()
    limit = max(float(np.nanmax(np.abs(values))) for values, _ in maps.values()) or 1.0
    columns = columns or min(len(maps), max(IN_A_ROW, int(np.ceil(np.sqrt(len(maps))))))
    rows = -(-len(maps) // columns)
    size = (PAGE, rows * (PAGE - 1.2) / columns + 0.7)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axis, (label, (values, span)) in zip(axes.flat, maps.items(), strict=False):
        edge = values.shape[0] * bin_size
        image = axis.imshow(
            values,
            cmap=DIVERGING,
            vmin=-limit,
            vmax=limit,
            extent=(0, edge, edge, 0),
            interpolation="nearest",
        )
        if span:
            axis.axvspan(*span, facecolor="none", edgecolor="black", linewidth=0.7)
        axis.set_title(label)
    for axis in axes.flat[len(maps) :]:
        axis.set_visible(False)
    for axis in axes.flat[max(0, len(maps) - columns) : len(maps)]:  # the lowest of each column
        axis.tick_params(labelbottom=True)
    figure.supxlabel("attended position", fontsize=7)
    figure.supylabel("query position", fontsize=7)
    figure.colorbar(image, ax=axes.ravel().tolist(), shrink=0.75 if rows <= 2 else 0.4, label=difference)
    return _captioned(figure, caption)


def draw_difference_by_head(
    attention: pd.DataFrame, positions: Sequence[int], difference: str, caption: str
) -> Figure:
    """Layer × head heatmaps of the difference in α at each of some positions. Columns layer, head, position, difference."""
    style()
    shown = attention[attention["position"].isin(positions)]
    limit = float(shown["difference"].abs().max()) or 1.0
    n_layers, n_heads = shown["layer"].nunique(), shown["head"].nunique()
    cell = float(np.clip(0.34, 0, PAGE / len(positions) / (n_heads + 4)))
    width = max(COLUMN, len(positions) * (cell * n_heads + 1.2))
    figure, axes = plt.subplots(
        1,
        len(positions),
        figsize=(min(PAGE, width), float(np.clip(cell * n_layers + 1.0, 1.8, 9))),
        squeeze=False,
    )
    for axis, position in zip(axes[0], positions, strict=True):
        grid = shown[shown["position"] == position].pivot(index="layer", columns="head", values="difference")
        _heatmap(grid, axis, limit, f"Δα, {difference}", max(n_layers, n_heads) <= ANNOTATED)
        axis.set(
            title=f"attention to position {position}",
            xlabel="head",
            ylabel="layer" if axis is axes[0][0] else "",
        )
    return _captioned(figure, caption)


def draw_difference_by_position(attention: pd.DataFrame, difference: str, span: Span, caption: str) -> Figure:
    """Difference in α by position: mean over layers and heads, and the range from their 10th to their 90th percentile. Columns position, difference."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN, 2.3))
    by = attention.groupby("position")["difference"]
    mean, low, high = by.mean(), by.quantile(0.1), by.quantile(0.9)
    axis.axhline(0, color="black", linewidth=0.5)
    _mark(axis, span)
    axis.fill_between(
        mean.index,
        low,
        high,
        color="#999999",
        alpha=0.35,
        linewidth=0,
        label="10th to 90th percentile of heads",
    )
    axis.plot(mean.index, mean, color="#333333", label="mean over layers and heads")
    axis.set(xlabel="position (0 is the first token)", ylabel=f"Δα, {difference}")
    axis.legend()
    return _captioned(figure, caption)


def draw_norm_correlation(correlations: pd.DataFrame, caption: str) -> Figure:
    """Heatmap of Pearson's r over layer and position; undefined cells stay grey. Columns layer, position, correlation."""
    style()
    grid = correlations.pivot(index="layer", columns="position", values="correlation")
    annotated = len(grid) <= ANNOTATED
    figure, axis = plt.subplots(
        figsize=(PAGE * 0.75, float(np.clip((0.24 if annotated else 0.13) * len(grid) + 1.0, 1.7, 9)))
    )
    axis.set_facecolor("#cccccc")
    _heatmap(grid, axis, 1.0, "Pearson's r of ‖v‖₂", annotated)
    axis.set(xlabel="position (0 is the first token)", ylabel="layer")
    return _captioned(figure, caption)


def draw_top1(probabilities: pd.DataFrame, span: Span, caption: str) -> Figure:
    """Mean top-1 probability by position, one line per condition. Columns condition, position, probability."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN, 2.3))
    _mark(axis, span)
    for rank, (condition, group) in enumerate(probabilities.groupby("condition", sort=False)):
        axis.plot(
            group["position"],
            group["probability"],
            color=color(str(condition)),
            label=condition,
            linewidth=2.2 - 1.2 * rank,
        )
    axis.set(
        xlabel="position (0 is the first token)", ylabel="top-1 probability of the next token", ylim=(0, 1.02)
    )
    axis.legend()
    return _captioned(figure, caption)


def _heatmap(grid: pd.DataFrame, axis: plt.Axes, limit: float, label: str, annotated: bool) -> None:
    n_rows, n_columns = grid.shape
    sns.heatmap(
        grid,
        ax=axis,
        vmin=-limit,
        vmax=limit,
        cmap=DIVERGING,
        annot=annotated,
        fmt=".2f",
        annot_kws={"size": 5},
        cbar_kws={"label": label},
        xticklabels=max(1, n_columns // 16),
        yticklabels=max(1, n_rows // 16),
    )
    axis.invert_yaxis()
    axis.tick_params(length=0)
    axis.tick_params(axis="y", rotation=0)


def _mark(axis: plt.Axes, span: Span) -> None:
    if span:
        axis.axvspan(
            span[0] - 0.5, span[1] - 0.5, facecolor="#f0e442", alpha=0.5, linewidth=0, label="trigger"
        )


def _captioned(figure: Figure, caption: str) -> Figure:
    figure.suptitle(wrap_caption(caption, figure.get_figwidth()), fontsize=7)
    return figure
