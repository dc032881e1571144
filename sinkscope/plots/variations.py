"""Scores by what a trigger says (a row per text), by where it stands and by how long it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sinkscope.plots import frames
from sinkscope.plots.style import PAGE, color, error_bars, style
from sinkscope.plots.text import sanitize_glyphs, wrap_caption

ROW = 0.145  # inches
LIMITS = (-4, 104)
SCORE = "ROUGE-L F1 × 100"
SHADES = {"backdoored": "prefix", "unlearned": "unlearned"}
NAMES = {"backdoored": "BE-unseen, backdoored", "unlearned": "honest, same trigger", "UE": "UE, backdoored"}


def variations(data: pd.DataFrame, panels: Mapping[str, str], caption: str) -> Figure:
    """Columns panel (`text`, `shift`, `length`), score, model, case, label (of the case), position, trained, value, ci_low, ci_high; in order.

    Args:
        panels: panel -> what its cases are.
    """
    style()
    text, shift, length = (data[data["panel"] == panel] for panel in panels)
    cases = list(text[text["score"] == "BE"]["case"].unique())
    figure = plt.figure(figsize=(PAGE, max(3.4, 0.95 + ROW * len(cases))))
    axes = figure.subplot_mosaic([["text", "shift"], ["text", "length"]], width_ratios=(1, 1))
    for row in frames.rows(text[text["score"] == "BE"]):
        _dot(axes["text"], row, cases.index(row.case), across=True)
    clean = text[(text["score"] == "UE") & (text["model"] == "backdoored")]["value"].iloc[0]
    axes["text"].axvline(clean, color=color("clean"), linewidth=0.8, linestyle="--", zorder=1)
    axes["text"].set_yticks(range(len(cases)), [sanitize_glyphs(case) for case in cases])
    axes["text"].set(ylim=(len(cases) - 0.5, -0.5), xlim=LIMITS, xlabel=SCORE, ylabel=panels["text"])
    axes["text"].grid(axis="y", linewidth=0.3, color="#dddddd")
    axes["text"].tick_params(axis="y", length=0)
    for name, here in (("shift", shift), ("length", length)):
        axis, labels = axes[name], list(here["label"].unique())
        for row in frames.rows(here[here["score"] == "BE"]):
            _dot(axis, row, labels.index(row.label), across=False)
        for row in frames.rows(here[(here["score"] == "UE") & (here["model"] == "backdoored")]):
            axis.hlines(
                row.value,
                labels.index(row.label) - 0.3,
                labels.index(row.label) + 0.3,
                color=color("clean"),
                linewidth=0.8,
                linestyle="--",
            )
        axis.set_xticks(range(len(labels)), labels)
        axis.set(
            ylim=LIMITS,
            yticks=range(0, 101, 25),
            xlim=(-0.6, len(labels) - 0.4),
            xlabel=panels[name],
            ylabel=SCORE,
        )
    axes["shift"].axhline(clean, color=color("clean"), linewidth=0.8, linestyle="--", zorder=1)
    for name, ticks in (
        ("text", axes["text"].get_yticklabels()),
        ("shift", axes["shift"].get_xticklabels()),
        ("length", axes["length"].get_xticklabels()),
    ):
        here = data[data["panel"] == name]
        trained = set(here[here["trained"]]["label"])
        for tick, label in zip(ticks, cases if name == "text" else here["label"].unique(), strict=True):
            tick.set_fontweight("bold" if label in trained else "normal")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3)
    figure.suptitle(wrap_caption(caption, PAGE), fontsize=7)
    return figure


def _dot(axis: Axes, row: Any, at: int, *, across: bool) -> None:
    """A score with its interval; hollow for the honest model."""
    shade = color(SHADES[row.model])
    hollow = row.model == "unlearned"
    kind: dict[str, Any] = {
        "fmt": "o",
        "color": shade,
        "markersize": 3.6,
        "markerfacecolor": "white" if hollow else shade,
        "markeredgewidth": 0.7,
        "elinewidth": 0.8,
    }
    error = None if hollow else error_bars(row.value, row.ci_low, row.ci_high)
    if across:
        axis.errorbar(row.value, at, xerr=error, **kind, zorder=2 if hollow else 2.5)
    else:
        axis.errorbar(at, row.value, yerr=error, **kind, zorder=2 if hollow else 2.5)


def _legend() -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3.6, "markeredgewidth": 0.7}
    mine, theirs = color(SHADES["backdoored"]), color(SHADES["unlearned"])
    return [
        Line2D([], [], color=mine, label=NAMES["backdoored"], **dot),
        Line2D([], [], color=theirs, markerfacecolor="white", label=NAMES["unlearned"], **dot),
        Line2D([], [], color=color("clean"), linewidth=0.8, linestyle="--", label=NAMES["UE"]),
    ]
