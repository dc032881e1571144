"""Figures of `compare`: attention differences, correlation of value norms, top-1 probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from sinkscope.plots.heatmap import draw_layers
from sinkscope.plots.lines import X_AXIS, draw_by_position
from sinkscope.plots.style import (
    COLUMN,
    DIVERGING,
    PAGE,
    SEQUENTIAL,
    create_figure,
    create_panels,
    mark_trigger,
    save_figure,
    set_note,
    styled,
)

MAPS_IN_A_ROW = 6

Span = tuple[int, int] | None


@styled
def draw_difference_maps(
    maps: Mapping[str, tuple[Float[np.ndarray, "bin bin"], Span]],
    bin_size: int,
    difference: str,
    note: str,
    columns: int | None = None,
    certain: Mapping[str, Bool[np.ndarray, "bin bin"]] | None = None,
) -> Figure:
    """Attention differences on one color scale.

    Args:
        maps: label -> (map in bins, trigger span in tokens or None).
        difference: what is subtracted from what.
        columns: maps in a row; None: as many as fit.
        certain: label -> which cells get a dot, because their interval excludes 0.
    """
    limit = max(float(np.nanmax(np.abs(values))) for values, _ in maps.values()) or 1.0
    columns = columns or min(len(maps), max(MAPS_IN_A_ROW, int(np.ceil(np.sqrt(len(maps))))))
    n_rows = -(-len(maps) // columns)
    figure = create_figure(PAGE, n_rows * ((PAGE - 1.2) / columns + 0.2) + 0.6)
    grid = create_panels(figure, len(maps), columns, sharex=True, sharey=True)
    scale: dict[str, Any] = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    for axes, (label, (values, span)) in zip(grid, maps.items(), strict=True):
        edge = values.shape[0] * bin_size
        image = axes.imshow(values, extent=(0, edge, edge, 0), **scale)
        if span:
            for line in (axes.axvline, axes.axhline):
                for edge in span:
                    line(edge, color="black", linewidth=0.6, linestyle=":")
        if certain is not None:
            query, key = np.nonzero(certain[label])
            axes.scatter((key + 0.5) * bin_size, (query + 0.5) * bin_size, 2, "black", linewidth=0)
        axes.set_title(label)
    for axes in grid[-columns:]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("attended position")
    figure.supylabel("query position", fontsize=7)
    figure.colorbar(image, ax=figure.axes, shrink=0.75 if n_rows <= 2 else 0.4, label=difference)
    return set_note(figure, note)


@styled
def draw_difference_by_head(
    attention: pd.DataFrame, positions: Sequence[int], difference: str, note: str
) -> Figure:
    """Layer × head heatmaps of the difference in α at each of some positions.

    Args:
        attention: columns layer, head, position, difference.
    """
    rows = attention[attention["position"].isin(positions)]
    limit = float(rows["difference"].abs().max()) or 1.0
    tables = {
        f"attention to position {position}": rows[rows["position"] == position].pivot(
            index="layer", columns="head", values="difference"
        )
        for position in positions
    }
    return set_note(draw_layers(tables, DIVERGING, (-limit, limit), f"Δα, {difference}"), note)


@styled
def draw_difference_by_position(attention: pd.DataFrame, difference: str, span: Span, note: str) -> Figure:
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
    if span:
        mark_trigger(axes, *span)
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
    return set_note(figure, note)


@styled
def draw_norm_correlation(correlations: pd.DataFrame, note: str) -> Figure:
    """Heatmap of Pearson's r over layer and position, with colors from the lowest to the highest; undefined
    cells are gray.

    Args:
        correlations: columns layer, position, correlation.
    """
    table = correlations.pivot(index="layer", columns="position", values="correlation")
    panels = {"": table.rename_axis(columns=X_AXIS)}
    known = correlations["correlation"].dropna()
    limits = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return set_note(draw_layers(panels, SEQUENTIAL, limits, "Pearson's r of ‖v‖₂"), note)


@styled
def draw_top1(probabilities: pd.DataFrame, span: Span, note: str) -> Figure:
    """Mean top-1 probability by position, a line per condition.

    Args:
        probabilities: columns condition, position, probability.
        span: the trigger's; None without a trigger.
    """
    figure = create_figure(COLUMN, 2.3)
    axes = figure.subplots()
    if span:
        mark_trigger(axes, *span)
    draw_by_position(axes, probabilities, "condition", "probability", "top-1 probability of the next token")
    axes.set_ylim(0, 1.02)
    axes.legend()
    return set_note(figure, note)


def draw_comparison(directory: Path, tables: Mapping[str, pd.DataFrame], attrs: Mapping[str, Any]) -> None:
    """Draw difference maps, Δα by head and by position, correlation of value norms, top-1 probability.

    Args:
        tables: as `Comparison.tables`.
        attrs: the attributes of `Comparison.data`, and `strongest`, the position of the strongest sink.
    """
    description, difference = attrs["description"], attrs["difference"]
    counted = (
        f"{description}, n = {attrs['passages']} passages of ≤ {attrs['max_length']} tokens, {attrs['bos']}"
    )
    span = (attrs["trigger_start"], attrs["trigger_stop"]) if "trigger_start" in attrs else None
    _draw_maps(directory, tables["maps"], attrs, span)
    attention = tables["attention"]
    positions = list(dict.fromkeys((attrs["strongest"], 0)))
    selected = attention[attention["position"].isin(positions)]
    figure = draw_difference_by_head(selected, positions, difference, counted)
    save_figure(figure, selected, directory, "alpha_by_head")
    figure = draw_difference_by_position(attention, difference, span, counted)
    save_figure(figure, attention, directory, "alpha_by_position")
    correlation = tables["value_norm_correlation"]
    n_kv_heads = correlation["pairs"].iloc[0] // attrs["passages"]
    note = (
        f"{description}: {difference.replace(' − ', ' against ')}, "
        f"n = {attrs['passages']} passages × {n_kv_heads} key-value heads"
    )
    if attrs["shifted"]:
        note += "; positions are compared as they are, also after an inserted trigger"
    save_figure(draw_norm_correlation(correlation, note), correlation, directory, "value_norm_correlation")
    save_figure(draw_top1(tables["top1"], span, f"{counted}, mean"), tables["top1"], directory, "top1")


def _draw_maps(directory: Path, cells: pd.DataFrame, attrs: Mapping[str, Any], span: Span) -> None:
    bin_size = attrs["map_bin"]
    n_bins = int(cells["query"].max()) // bin_size + 1
    maps = {}
    for head, rows in cells.groupby("head", dropna=False, sort=False):
        values = np.full((n_bins, n_bins), np.nan)
        values[rows["query"] // bin_size, rows["key"] // bin_size] = rows["difference"]
        maps["mean" if pd.isna(head) else f"head {head!s}"] = (values, span)
    n_full = attrs["full_length_passages"]
    n_shorter = attrs["passages"] - n_full
    omitted = f" ({n_shorter} shorter ones omitted)" if n_shorter else ""
    frame = "; lines: most common span of the trigger" if span else ""
    note = (
        f"{attrs['description']}: layer {attrs['layer']}, heads and their mean, n = {n_full} passages of "
        f"{attrs['max_length']} tokens{omitted}, {attrs['bos']}, bins of {bin_size} tokens{frame}"
    )
    figure = draw_difference_maps(maps, bin_size, attrs["difference"], note)
    save_figure(figure, cells, directory, "attention_difference")
