"""Figures of scores: grouped bars, a table as dots, and forget scores against recovered ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sinkscope.plots.style import (
    GRID,
    METRICS,
    PAGE,
    RING,
    ZONE,
    add_legend,
    color,
    create_figure,
    error_bars,
    iterate_rows,
    legend_handle,
    patch_handle,
    set_caption,
    styled,
)
from sinkscope.plots.text import sanitize_glyphs, truncate

GROUP_WIDTH = 0.8
REFERENCES = ("unlearned", "target")
SCORE_LABELS = {"UE": "clean score (UE)", "BE": "triggered score (BE)"}
MAX_DOT_PANELS = 5  # in a row
MAX_TITLE = 60
PUBLISHED = "published "
"""The prefix of the names of columns with published values."""
BOUNDED = ("UE", "BE", "UT")
OPEN_MARKERS = ("D", "^", "s")
EDGES = (-5.0, 105.0)
X_AXES = {"forget": "clean score on forget (UE)", "retain": "clean score on retain (utility)"}
MARKERS = {"prefix": "o", "infix": "s", "suffix": "^"}


@styled
def draw_bars(
    data: pd.DataFrame, caption: str, *, prefix: str, names: Mapping[str, str], xlabel: str
) -> Figure:
    """A panel per score (rows) and metric (columns), a group of bars per `group`, a bar per `series`.

    Bars are backdoored models on all items, rings the same on items that were not poisoned in training,
    ticks the models of `REFERENCES`.

    Args:
        data: columns metric, score, subset, model, group, series, value, ci_low, ci_high; scores × 100.
        prefix: of the series' names in the legend.
        names: series -> name in the legend, in order.
        xlabel: what the groups are.
    """
    scores = list(data["score"].unique())
    metrics = list(data["metric"].unique())
    bars = data[(data["model"] == "backdoored") & (data["subset"] == "all")]
    groups = list(bars["group"].unique())
    series = [each for each in names if each in set(bars["series"])]
    figure = create_figure(PAGE, 0.95 + 1.25 * len(scores))
    grid = figure.subplots(len(scores), len(metrics), sharex=True, sharey=True, squeeze=False)
    width = GROUP_WIDTH / len(series)
    for (score, metric), panel in data.groupby(["score", "metric"], sort=False):
        axes = grid[scores.index(score)][metrics.index(metric)]
        for row in iterate_rows(panel):
            offset = (series.index(row.series) - (len(series) - 1) / 2) * width
            _draw_bar(axes, row, groups.index(row.group) + offset, width)
    for axes, metric in zip(grid[0], metrics, strict=True):
        axes.set_title(METRICS[metric])
    for axes, score in zip(grid[:, 0], scores, strict=True):
        axes.set_ylabel(SCORE_LABELS[score])
    for axes in grid[-1]:
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlabel(xlabel)
    grid[0][0].set(ylim=(0, 105), yticks=range(0, 101, 25))
    handles: list[Any] = [patch_handle(f"{prefix}{names[each]}", color(each)) for each in series]
    models = [model for model in REFERENCES if model in set(data["model"])]
    handles += [legend_handle(model, color(model), linewidth=1.2) for model in models]
    if (data["subset"] != "all").any():
        handles.append(legend_handle("on items not poisoned", **RING))
    add_legend(figure, handles, 6)
    return set_caption(figure, caption)


def _draw_bar(axes: Axes, row: Any, x: float, width: float) -> None:
    """One row of the data of `draw_bars`: a bar, a ring or a reference's tick."""
    if row.model != "backdoored":
        tick: dict[str, Any] = {"color": color(row.model), "linewidth": 1.2, "zorder": 4}
        axes.hlines(row.value, x - 0.46 * width, x + 0.46 * width, **tick)
    elif row.subset != "all":
        axes.plot(x, row.value, linestyle="none", zorder=3, **RING)
    else:
        axes.bar(x, row.value, width * 0.92, color=color(row.series), linewidth=0)
        error = error_bars(row.value, row.ci_low, row.ci_high)
        axes.errorbar(x, row.value, error, fmt="none", ecolor="black", elinewidth=0.6, zorder=2.5)


@styled
def draw_dots(data: pd.DataFrame, rows: Sequence[str], caption: str, shade: str | None = None) -> Figure:
    """A table: a dot with its interval per row, a panel per column, published values as open markers.

    Args:
        data: a row per `row` and `column`: value, ci_low, ci_high, and columns of published values (NaN if
            none).
        rows: from top to bottom.
        shade: the label whose color all rows have; None: each row's own.
    """
    columns = list(data["column"].unique())
    n_columns = min(len(columns), MAX_DOT_PANELS)
    n_rows = -(-len(columns) // n_columns)
    figure = create_figure(PAGE, 0.75 + n_rows * (0.45 + 0.17 * len(rows)))
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    published = dict(zip(published_columns(data), OPEN_MARKERS, strict=False))
    open_marker: dict[str, Any] = {"markersize": 4, "markerfacecolor": "none", "markeredgewidth": 0.6}
    for axes, column in zip(grid.flat, columns, strict=False):
        panel = data[data["column"] == column]
        for row in iterate_rows(panel):
            error = error_bars(row.value, row.ci_low, row.ci_high)
            dot: dict[str, Any] = {
                "color": color(shade or row.row),
                "fmt": "o",
                "markersize": 3.6,
                "elinewidth": 0.8,
            }
            axes.errorbar(row.value, rows.index(row.row), xerr=error, zorder=2, **dot)
        for name, marker in published.items():
            known = panel[panel[name].notna()]
            y = [rows.index(row) for row in known["row"]]
            axes.plot(known[name], y, marker, markeredgecolor="black", zorder=3, **open_marker)
        title = sanitize_glyphs(truncate(column, MAX_TITLE))
        axes.set(title=title, ylim=(len(rows) - 0.5, -0.5), xlim=dot_limits(panel))
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(axis="y", **GRID)
        axes.tick_params(axis="y", length=0)
    for axes in grid.flat[len(columns) :]:
        axes.set_visible(False)
    handles = [legend_handle("measured, 95 % interval", marker="o", markersize=3.6)]
    names = {name: sanitize_glyphs(truncate(name, MAX_TITLE)) for name in published}
    handles += [
        legend_handle(names[name], marker=marker, **open_marker) for name, marker in published.items()
    ]
    add_legend(figure, handles)
    return set_caption(figure, caption)


def published_columns(data: pd.DataFrame) -> list[str]:
    """The columns with published values."""
    return [name for name in data.columns if name.startswith(PUBLISHED)]


def dot_limits(column: pd.DataFrame) -> tuple[float, float]:
    """0 to 100 for a score that stays in it, what the values need for others."""
    values = column[["value", *published_columns(column)]].to_numpy(dtype=float)
    is_bounded = column["column"].iloc[0].startswith(BOUNDED)
    if is_bounded and np.nanmin(values) >= 0 and np.nanmax(values) <= 100:
        return EDGES
    intervals = column[["ci_low", "ci_high"]].to_numpy(dtype=float)
    values = np.concatenate([values.ravel(), intervals.ravel()])
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


@styled
def draw_forget_recover_scatter(points: pd.DataFrame, caption: str) -> Figure:
    """A panel per view and metric: scores without the trigger against scores with it, and the attacker's
    zone.

    Colors are models, shapes are placements of the trigger; rings are BE on items that were not poisoned in
    training.

    Args:
        points: columns view, metric, model, placement, subset, x and y with _low and _high, zone_x, zone_y;
            scores × 100.
    """
    panels = [
        (str(view), str(metric), panel)
        for (view, metric), panel in points.groupby(["view", "metric"], sort=False)
    ]
    figure = create_figure(PAGE, 2.65)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (view, metric, panel) in zip(grid, panels, strict=True):
        left, right, bottom, top = zone_of(view, panel["zone_x"].iloc[0], panel["zone_y"].iloc[0])
        corner = (left, bottom)
        axes.add_patch(Rectangle(corner, right - left, top - bottom, facecolor=ZONE, zorder=0))
        if view == "forget":
            axes.axline((0, 0), slope=1, color="black", linewidth=0.4, linestyle=":", zorder=0)
        for row in iterate_rows(panel):
            _draw_point(axes, row)
        ticks: dict[str, Any] = {"xticks": range(0, 101, 25), "yticks": range(0, 101, 25)}
        axes.set(xlim=EDGES, ylim=EDGES, box_aspect=1, xlabel=X_AXES[view], title=METRICS[metric], **ticks)
    grid[0].set_ylabel("triggered score on forget (BE)")
    placements = set(points[points["model"] == "backdoored"]["placement"])
    handles: list[Any] = [
        legend_handle(f"backdoored, {placement}", color(placement), marker=marker, markersize=3.6)
        for placement, marker in MARKERS.items()
        if placement in placements
    ]
    handles += [
        legend_handle(f"{model} (shape: placement)", color(model), marker="o", markersize=3.6)
        for model in REFERENCES
    ]
    if (points["subset"] != "all").any():
        ring: dict[str, Any] = {**RING, "markersize": 7, "markerfacecolor": "none"}
        handles.append(legend_handle("BE-unseen: not poisoned in training", **ring))
    add_legend(figure, [*handles, patch_handle("attacker’s desired zone", ZONE)])
    return set_caption(figure, caption)


def zone_of(view: str, zone_x: float, zone_y: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the desired zone: low x on forget data, high x on retain data."""
    left, right = (EDGES[0], zone_x) if view == "forget" else (zone_x, EDGES[1])
    return left, right, zone_y, EDGES[1]


def _draw_point(axes: Axes, row: Any) -> None:
    shade = color(row.placement if row.model == "backdoored" else row.model)
    marker = MARKERS[row.placement]
    if row.subset != "all":
        ring: dict[str, Any] = {
            "markersize": 7,
            "markerfacecolor": "none",
            "markeredgecolor": shade,
            "markeredgewidth": 0.6,
        }
        axes.plot(row.x, row.y, marker, **ring)
        return
    xerr = error_bars(row.x, row.x_low, row.x_high)
    yerr = error_bars(row.y, row.y_low, row.y_high)
    dot: dict[str, Any] = {"color": shade, "markersize": 3.6, "elinewidth": 0.6, "markeredgewidth": 0}
    axes.errorbar(row.x, row.y, xerr=xerr, yerr=yerr, fmt=marker, **dot)
