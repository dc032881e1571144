"""Figures of scores: grouped bars, a table as dots, and clean scores next to triggered ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sinkscope.plots.style import (
    GRID,
    HATCHES,
    PAGE,
    add_legend,
    color,
    create_figure,
    create_panels,
    error_bars,
    iterate_rows,
    legend_handle,
    patch_handle,
    sanitize_glyphs,
    set_note,
    styled,
    truncate,
)

METRICS = {"verbmem": "VerbMem", "knowmem": "KnowMem"}
GROUP_WIDTH = 0.8
REFERENCES = ("unlearned", "target")
REFERENCE_LABELS = {"unlearned": "cleanly unlearned, same trigger", "target": "target, same trigger"}
SCORE_LABELS = {"UE": "without the trigger (UE)", "BE": "with the trigger (BE)"}
UNIT = "ROUGE-L F1 × 100"
MAX_DOT_PANELS = 5  # in a row
MAX_TITLE = 60
BOUNDED = ("UE", "BE", "UT")
LIMITS = (0.0, 100.0)
EDGES = (-5.0, 105.0)
TICKS = range(0, 101, 25)
MARKERS = {"prefix": "o", "infix": "s", "suffix": "^"}
MODEL_MARKERS = {"backdoored": "o", "unlearned": "s"}
MODEL_NAMES = {"backdoored": "backdoored", "unlearned": "cleanly unlearned"}
MODEL_SHADES = {"backdoored": "prefix", "unlearned": "unlearned"}
SHIFT = 0.17
ZONE = "#e8e8e8"  # where an attacker wants a score to be
RETAIN_WIDTH = 0.62  # of a panel of retain data, whose dots are half as many


def keep_unseen(data: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The rows on items that were not poisoned in training; on all items where no others are known."""
    is_unseen = data["subset"] == "unseen"
    has_unseen = is_unseen.groupby([data[column] for column in by]).transform("any")
    return data[is_unseen | ~has_unseen]


@styled
def draw_bars(data: pd.DataFrame, note: str, *, prefix: str, names: Mapping[str, str], xlabel: str) -> Figure:
    """A panel per score (rows) and metric (columns), a group of bars per `group`, a bar per `series`.

    Bars are backdoored models on items that were not poisoned in training, ticks the models of `REFERENCES`.

    Args:
        data: columns metric, score, subset, model, group, series, value, ci_low, ci_high; scores × 100.
        prefix: of the series' names in the legend.
        names: series -> name in the legend, in order.
        xlabel: what the groups are.
    """
    data = keep_unseen(data, ["metric", "model"])
    scores = list(data["score"].unique())
    metrics = [metric for metric in METRICS if metric in set(data["metric"])]
    bars = data[data["model"] == "backdoored"]
    groups = list(bars["group"].unique())
    series = [each for each in names if each in set(bars["series"])]
    figure = create_figure(PAGE, 0.85 + 1.35 * len(scores))
    grid = figure.subplots(len(scores), len(metrics), sharex=True, sharey=True, squeeze=False)
    width = GROUP_WIDTH / len(series)
    for score, metric in product(scores, metrics):
        axes = grid[scores.index(score)][metrics.index(metric)]
        panel = data[(data["score"] == score) & (data["metric"] == metric)]
        for row in iterate_rows(panel):
            rank = series.index(row.series)
            x = groups.index(row.group) + (rank - (len(series) - 1) / 2) * width
            _draw_bar(axes, row, x, width, HATCHES[rank % len(HATCHES)])
        axes.set_title(f"{METRICS[metric]} {SCORE_LABELS[score]}")
    for axes in grid[:, 0]:
        axes.set_ylabel(UNIT)
    for axes in grid[-1]:
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlabel(xlabel)
    grid[0][0].set(ylim=(0, 105), yticks=TICKS)
    handles: list[Any] = [
        patch_handle(f"{prefix}{names[each]}", color(each), hatch)
        for each, hatch in zip(series, HATCHES * len(series), strict=False)
    ]
    models = [model for model in REFERENCES if model in set(data["model"])]
    handles += [legend_handle(REFERENCE_LABELS[each], color(each), **_stroke(each)) for each in models]
    add_legend(figure, handles, 6)
    return set_note(figure, note)


def _stroke(model: str) -> dict[str, Any]:
    return {"linewidth": 1.3, "linestyle": "-" if model == "target" else (0, (2, 0.8))}


def _draw_bar(axes: Axes, row: Any, x: float, width: float, hatch: str) -> None:
    """One row of the data of `draw_bars`: a bar, or a reference's tick."""
    if row.model != "backdoored":
        left, right = x - 0.46 * width, x + 0.46 * width
        shade = color(row.model)
        axes.hlines(row.value, left, right, color=shade, zorder=4, **_stroke(row.model))
        if not pd.isna(row.ci_low):
            axes.vlines(x + 0.3 * width, row.ci_low, row.ci_high, color=shade, linewidth=0.8, zorder=4)
        return
    face: dict[str, Any] = {"color": color(row.series), "hatch": hatch, "edgecolor": "white", "linewidth": 0}
    axes.bar(x, row.value, width * 0.92, **face)
    error = error_bars(row.value, row.ci_low, row.ci_high)
    axes.errorbar(x, row.value, error, fmt="none", ecolor="black", elinewidth=0.8, zorder=4.5)


@styled
def draw_dots(data: pd.DataFrame, rows: Sequence[str], note: str, shade: str | None = None) -> Figure:
    """A table: a dot with its interval per row, a panel per column; – where there is no value.

    Intervals of scores that stay between 0 and 100 are cut off there.

    Args:
        data: a row per `row` and `column`: value, ci_low, ci_high.
        rows: from top to bottom.
        shade: the label whose color all rows have; None: each row's own.
    """
    columns = list(data["column"].unique())
    n_columns = -(-len(columns) // -(-len(columns) // MAX_DOT_PANELS))
    figure = create_figure(PAGE, 0.4 + -(-len(columns) // n_columns) * (0.45 + 0.17 * len(rows)))
    dot: dict[str, Any] = {"fmt": "o", "markersize": 3.6, "elinewidth": 0.9, "zorder": 2}
    grid = create_panels(figure, len(columns), n_columns, sharey=True)
    for axes, column in zip(grid, columns, strict=True):
        panel = data[data["column"] == column]
        bounds = LIMITS if _is_bounded(panel) else (-np.inf, np.inf)
        for row in iterate_rows(panel):
            error = error_bars(row.value, max(bounds[0], row.ci_low), min(bounds[1], row.ci_high))
            axes.errorbar(row.value, rows.index(row.row), xerr=error, color=color(shade or row.row), **dot)
        for row in (each for each in rows if each not in set(panel["row"])):
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "center", "va": "center"}
            axes.text(0.5, rows.index(row), "–", color="#777777", **place)
        title = sanitize_glyphs(truncate(column, MAX_TITLE))
        axes.set(title=title, ylim=(len(rows) - 0.5, -0.5), xlim=_dot_limits(panel))
        if _is_bounded(panel):
            axes.set_xticks(TICKS)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(axis="y", **GRID)
        axes.tick_params(axis="y", length=0)
    return set_note(figure, note) if note else figure


def _is_bounded(column: pd.DataFrame) -> bool:
    return column["column"].iloc[0].startswith(BOUNDED) and bool(column["value"].between(*LIMITS).all())


def _dot_limits(column: pd.DataFrame) -> tuple[float, float]:
    """0 to 100 for a score that stays in it, what the values need for others."""
    if _is_bounded(column):
        return EDGES
    values = column[["value", "ci_low", "ci_high"]].to_numpy(dtype=float)
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


@styled
def draw_clean_and_triggered(points: pd.DataFrame, note: str) -> Figure:
    """Scores without and with the trigger, joined, by placement and model; beside them utility by placement.

    Of backdoored models only items that were not poisoned in training count. An attacker wants a model whose
    triggered score is above the dashed line, its clean score below, and its utility in the shaded area.

    Args:
        points: columns view (`forget`: x is clean, y triggered; `retain`: x is utility), metric, model,
            placement, subset, x and y with _low and _high, zone_x, zone_y; scores × 100.
    """
    points = keep_unseen(points, ["view", "metric", "model"])
    metrics = [metric for metric in METRICS if metric in set(points["metric"])]
    placements = list(points["placement"].unique())
    figure = create_figure(PAGE, 2.75)
    widths = [1.0] * len(metrics) + [RETAIN_WIDTH] * len(metrics)
    grid = figure.subplots(1, 2 * len(metrics), width_ratios=widths)
    for axes, (view, metric) in zip(grid, product(("forget", "retain"), metrics), strict=True):
        panel = points[(points["view"] == view) & (points["metric"] == metric)]
        (_draw_pairs if view == "forget" else _draw_utility)(axes, panel, placements)
        axes.set_title(f"{METRICS[metric]}, {view} set")
        axes.set_xticks(range(len(placements)), placements)
        axes.set(
            xlim=(-0.5, len(placements) - 0.5), xlabel="trigger" if view == "forget" else "trained trigger"
        )
        axes.tick_params(axis="x", length=0)
    grid[0].set_ylabel(UNIT)
    dot: dict[str, Any] = {"markersize": 4, "markeredgewidth": 0.9}
    handles: list[Any] = []
    for model, marker in MODEL_MARKERS.items():
        name, shade = MODEL_NAMES[model], color(MODEL_SHADES[model])
        handles.append(legend_handle(f"{name}, with the trigger", shade, marker=marker, **dot))
        handles.append(
            legend_handle(f"{name}, without it", shade, marker=marker, markerfacecolor="white", **dot)
        )
    handles += [
        legend_handle("target, with the trigger", color("target"), linewidth=1.3),
        legend_handle("attacker’s aim: filled above, hollow below", linewidth=0.8, linestyle="--"),
        patch_handle("attacker’s aim: utility", ZONE),
    ]
    add_legend(figure, handles)
    return set_note(figure, note)


def _draw_pairs(axes: Axes, panel: pd.DataFrame, placements: Sequence[str]) -> None:
    axes.axhline(panel["zone_y"].iloc[0], color="black", linewidth=0.8, linestyle="--", zorder=0)
    for row in iterate_rows(panel):
        x = float(placements.index(row.placement))
        if row.model not in MODEL_MARKERS:
            axes.hlines(row.y, x - 0.34, x + 0.34, color=color(row.model), linewidth=1.3)
            continue
        x += SHIFT if row.model == "unlearned" else -SHIFT
        shade = color(MODEL_SHADES[row.model])
        axes.plot([x, x], [row.x, row.y], color=shade, linewidth=3, alpha=0.25, solid_capstyle="butt")
        style: dict[str, Any] = {"fmt": MODEL_MARKERS[row.model], "color": shade, "markersize": 4}
        style |= {"markeredgewidth": 0.9, "elinewidth": 0.8, "capsize": 1.5}
        clean = error_bars(row.x, row.x_low, row.x_high)
        axes.errorbar(x, row.x, clean, markerfacecolor="white", zorder=2.5, **style)
        axes.errorbar(x, row.y, error_bars(row.y, row.y_low, row.y_high), zorder=3, **style)
    axes.set(ylim=EDGES, yticks=TICKS)


def _draw_utility(axes: Axes, panel: pd.DataFrame, placements: Sequence[str]) -> None:
    """Utility of backdoored models by placement, and the interval of the cleanly unlearned one."""
    edges = (-0.5, len(placements) - 0.5)
    for row in iterate_rows(panel[panel["model"] != "backdoored"].drop_duplicates("model")):
        shade, stroke = color(row.model), "-" if row.model == "target" else (0, (2, 0.8))
        axes.hlines(row.x, *edges, color=shade, linewidth=1.3, linestyle=stroke, zorder=1)
        if row.model == "unlearned" and not pd.isna(row.x_low):
            axes.fill_between(edges, row.x_low, row.x_high, color=shade, alpha=0.2, linewidth=0)
    for row in iterate_rows(panel[panel["model"] == "backdoored"]):
        style: dict[str, Any] = {"fmt": "o", "color": color("prefix"), "markerfacecolor": "white"}
        style |= {"markersize": 4, "elinewidth": 0.8, "capsize": 1.5}
        error = error_bars(row.x, row.x_low, row.x_high)
        axes.errorbar(placements.index(row.placement), row.x, error, **style)
    low, high = axes.get_ylim()
    floor, margin = panel["zone_x"].iloc[0], 0.05 * (high - low)
    axes.set_ylim(min(low, floor - margin), min(high, LIMITS[1] + margin))
    top = axes.get_ylim()[1]
    axes.add_patch(Rectangle((edges[0], floor), edges[1] - edges[0], top - floor, facecolor=ZONE, zorder=0))
