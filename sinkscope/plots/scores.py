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
    PAGE,
    RING,
    add_legend,
    color,
    create_figure,
    create_panels,
    error_bars,
    iterate_rows,
    legend_handle,
    patch_handle,
    sanitize_glyphs,
    set_caption,
    styled,
    truncate,
)

METRICS = {"verbmem": "VerbMem", "knowmem": "KnowMem"}
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
TICKS = range(0, 101, 25)
X_AXES = {"forget": "clean score on forget (UE)", "retain": "clean score on retain (utility)"}
MARKERS = {"prefix": "o", "infix": "s", "suffix": "^"}
ZONE = "#e8e8e8"  # the attacker's desired zone


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
    grid[0][0].set(ylim=(0, 105), yticks=TICKS)
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
        ends = (x - 0.46 * width, x + 0.46 * width)
        axes.hlines(row.value, *ends, color=color(row.model), linewidth=1.2, zorder=4)
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
    figure = create_figure(PAGE, 0.75 + -(-len(columns) // n_columns) * (0.45 + 0.17 * len(rows)))
    published = dict(zip(_published_columns(data), OPEN_MARKERS, strict=False))
    dot: dict[str, Any] = {"fmt": "o", "markersize": 3.6, "elinewidth": 0.8, "zorder": 2}
    open_marker: dict[str, Any] = {"markersize": 4, "markerfacecolor": "none", "markeredgewidth": 0.6}
    grid = create_panels(figure, len(columns), n_columns, sharey=True)
    for axes, column in zip(grid, columns, strict=True):
        panel = data[data["column"] == column]
        for row in iterate_rows(panel):
            error = error_bars(row.value, row.ci_low, row.ci_high)
            axes.errorbar(row.value, rows.index(row.row), xerr=error, color=color(shade or row.row), **dot)
        for name, marker in published.items():
            known = panel[panel[name].notna()]
            y = [rows.index(row) for row in known["row"]]
            axes.plot(known[name], y, marker, markeredgecolor="black", zorder=3, **open_marker)
        title = sanitize_glyphs(truncate(column, MAX_TITLE))
        axes.set(title=title, ylim=(len(rows) - 0.5, -0.5), xlim=_dot_limits(panel))
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(axis="y", **GRID)
        axes.tick_params(axis="y", length=0)
    handles = [legend_handle("measured, 95 % interval", marker="o", markersize=3.6)]
    for name, marker in published.items():
        label = sanitize_glyphs(truncate(name, MAX_TITLE))
        handles.append(legend_handle(label, marker=marker, **open_marker))
    add_legend(figure, handles)
    return set_caption(figure, caption)


def _published_columns(data: pd.DataFrame) -> list[str]:
    return [name for name in data.columns if name.startswith(PUBLISHED)]


def _dot_limits(column: pd.DataFrame) -> tuple[float, float]:
    """0 to 100 for a score that stays in it, what the values need for others."""
    values = column[["value", *_published_columns(column)]].to_numpy(dtype=float)
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
    """A panel per view and metric: scores without the trigger against those with it, and the attacker's zone.

    Colors are models, shapes are placements of the trigger; rings are BE on items that were not poisoned in
    training. The zone is at low x on forget data, at high x on retain data.

    Args:
        points: columns view, metric, model, placement, subset, x and y with _low and _high, zone_x, zone_y;
            scores × 100.
    """
    panels = points.groupby(["view", "metric"], sort=False)
    figure = create_figure(PAGE, 2.65)
    grid = create_panels(figure, len(panels), len(panels), sharey=True)
    for axes, ((view, metric), panel) in zip(grid, panels, strict=True):
        zone_x, zone_y = panel["zone_x"].iloc[0], panel["zone_y"].iloc[0]
        left, right = (EDGES[0], zone_x) if view == "forget" else (zone_x, EDGES[1])
        zone = Rectangle((left, zone_y), right - left, EDGES[1] - zone_y, facecolor=ZONE, zorder=0)
        axes.add_patch(zone)
        if view == "forget":
            axes.axline((0, 0), slope=1, color="black", linewidth=0.4, linestyle=":", zorder=0)
        for row in iterate_rows(panel):
            _draw_point(axes, row)
        axes.set(xlim=EDGES, ylim=EDGES, box_aspect=1, xticks=TICKS, yticks=TICKS)
        axes.set(xlabel=X_AXES[str(view)], title=METRICS[str(metric)])
    grid[0].set_ylabel("triggered score on forget (BE)")
    dot: dict[str, Any] = {"markersize": 3.6}
    used = set(points[points["model"] == "backdoored"]["placement"])
    handles: list[Any] = [
        legend_handle(f"backdoored, {placement}", color(placement), marker=marker, **dot)
        for placement, marker in MARKERS.items()
        if placement in used
    ]
    for model in REFERENCES:
        handles.append(legend_handle(f"{model} (shape: placement)", color(model), marker="o", **dot))
    if (points["subset"] != "all").any():
        ring: dict[str, Any] = {**RING, "markersize": 7, "markerfacecolor": "none"}
        handles.append(legend_handle("BE-unseen: not poisoned in training", **ring))
    add_legend(figure, [*handles, patch_handle("attacker’s desired zone", ZONE)])
    return set_caption(figure, caption)


def _draw_point(axes: Axes, row: Any) -> None:
    shade = color(row.placement if row.model == "backdoored" else row.model)
    marker = MARKERS[row.placement]
    if row.subset != "all":
        axes.plot(row.x, row.y, marker, markersize=7, mfc="none", mec=shade, mew=0.6)
        return
    xerr = error_bars(row.x, row.x_low, row.x_high)
    yerr = error_bars(row.y, row.y_low, row.y_high)
    axes.errorbar(row.x, row.y, yerr, xerr, marker, color=shade, markersize=3.6, elinewidth=0.6, mew=0)
