"""Extension: one corpus unlearned cleanly, another with a backdoor, in both orders."""

from __future__ import annotations

from typing import Any

import pandas as pd
from common import concat_captions, describe_intervals, format_range, select_grid, sort_by
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkscope.errors import StudyError
from sinkscope.plots.style import (
    PAGE,
    RING,
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
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

STAGES = {
    "both": "nothing",
    "field": "domain",
    "field-then-book": "domain\nthen\nbook",
    "field-then-hidden-book": "domain\nthen\nbook*",
    "hidden-book": "book*",
    "hidden-book-then-field": "book*\nthen\ndomain",
    "book": "book",
    "book-then-field": "book\nthen\ndomain",
    "book-then-hidden-field": "book\nthen\ndomain*",
    "hidden-field": "domain*",
    "hidden-field-then-book": "domain*\nthen\nbook",
}
"""Grid -> the corpora that its models unlearned, in order; with a star with a backdoor."""
NEEDS = tuple(STAGES)
SCORES = {"domain": "choice", "book": "verbmem"}
LABELS = {"domain": "domain of knowledge\n% of choices correct", "book": "book\nVerbMem, ROUGE-L F1 × 100"}
CHANCE = {"domain": 25.0}
CONDITIONS = {"clean": "clean", "triggered": "with the trigger"}
WIDTH = 0.38


def compute(study: Study) -> pd.DataFrame:
    """A row per score, stage (grid), condition (`clean`, `triggered`) and subset.

    Scores are `domain`, choice accuracy on the unlearned domain of knowledge, and `book`, VerbMem on the
    unlearned book. Subsets are `all` and `unseen`, prompts from passages that were not poisoned.

    Raises:
        StudyError: the study lacks a grid or a score.
    """
    parts = []
    for grid in STAGES:
        rows = select_grid(study, "scores", grid)
        rows = rows[(rows["mask"] == "") & (rows["split"] == "forget") & (rows["subset"] != "poisoned")]
        condition = (rows["placement"] != "").map({True: "triggered", False: "clean"})
        rows = rows.assign(stage=grid, condition=condition)
        rows = rows[(rows["subset"] == "all") | (rows["condition"] == "triggered")]
        parts += [rows[rows["metric"] == metric].assign(score=score) for score, metric in SCORES.items()]
    rows = pd.concat(parts)
    if lacking := set(SCORES) - set(rows["score"]):
        score = min(lacking)
        raise StudyError(
            f"study {study.directory} has no {SCORES[score]} on the {score}; add an evaluation of it"
        )
    frame = mean_over_seeds(rows, ["score", "stage", "condition", "subset"])
    return sort_by(frame, score=SCORES, stage=STAGES, condition=CONDITIONS, subset=("all", "unseen"))


def caption(frame: pd.DataFrame) -> str:
    rows = frame[frame["subset"] == "all"]
    domain, book = (format_range(rows[rows["score"] == score]["n"]) for score in SCORES)
    return concat_captions(
        "* unlearned with a backdoor, without a star cleanly",
        "the domain by RMU, the book by NPO",
        "one trigger, as prefix",
        f"n\u00a0=\u00a0{domain} questions and {book} prompts",
        describe_intervals(frame, "items"),
    )


@styled
def plot(frame: pd.DataFrame) -> Figure:
    """A panel per score, a group of bars per stage, a bar per condition."""
    stages = [stage for stage in STAGES if stage in set(frame["stage"])]
    figure = create_figure(PAGE, 3.9)
    grid = figure.subplots(len(LABELS), 1, sharex=True)
    for axes, (score, label) in zip(grid, LABELS.items(), strict=True):
        rows = frame[frame["score"] == score]
        for row in iterate_rows(rows):
            offset = (list(CONDITIONS).index(row.condition) - 0.5) * WIDTH
            _draw_bar(axes, row, stages.index(row.stage) + offset)
        for stage in set(stages) - set(rows["stage"]):
            style = {"fontsize": 6, "color": "#777777", "ha": "center", "rotation": 90}
            axes.text(stages.index(stage), 3, "not evaluated", **style)
        if score in CHANCE:
            axes.axhline(CHANCE[score], color="black", linewidth=0.6, linestyle=":", zorder=0.5)
        axes.set_xticks(range(len(stages)), [STAGES[stage] for stage in stages])
        axes.tick_params(axis="x", length=0)
        axes.set(ylabel=label, ylim=(0, 105), yticks=range(0, 101, 25))
    grid[-1].set_xlabel("unlearned, in order")
    handles: list[Any] = [patch_handle(name, color(condition)) for condition, name in CONDITIONS.items()]
    if (frame["subset"] != "all").any():
        handles.append(legend_handle("on prompts from passages not poisoned", **RING))
    add_legend(figure, [*handles, legend_handle("chance", linewidth=0.6, linestyle=":")])
    return set_caption(figure, caption(frame))


def _draw_bar(axes: Axes, row: Any, x: float) -> None:
    if row.subset != "all":
        axes.plot(x, row.value, linestyle="none", zorder=3, **RING)
        return
    axes.bar(x, row.value, WIDTH * 0.94, color=color(row.condition), linewidth=0)
    error = error_bars(row.value, row.ci_low, row.ci_high)
    axes.errorbar(x, row.value, error, fmt="none", ecolor="#888888", elinewidth=0.8, zorder=2.5)
