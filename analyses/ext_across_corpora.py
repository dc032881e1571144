"""Extension: one corpus unlearned cleanly, another with a backdoor, in both orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from common import concat_captions, describe_intervals, format_range, select_grid, sort_by
from matplotlib.figure import Figure

from sinkscope.errors import StudyError
from sinkscope.plots.scores import keep_unseen
from sinkscope.plots.style import PAGE, SEQUENTIAL, create_figure, iterate_rows, set_note, styled
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

STAGES = {
    "both": "nothing",
    "field": "domain",
    "field-then-book": "domain, book",
    "field-then-hidden-book": "domain, book*",
    "hidden-book": "book*",
    "hidden-book-then-field": "book*, domain",
    "book": "book",
    "book-then-field": "book, domain",
    "book-then-hidden-field": "book, domain*",
    "hidden-field": "domain*",
    "hidden-field-then-book": "domain*, book",
}
"""Grid -> the corpora that its models unlearned, in order; with a star with a backdoor."""
ORDER = (
    *("both", "field", "book", "field-then-book", "book-then-field"),
    *("hidden-field", "book-then-hidden-field", "hidden-field-then-book"),
    *("hidden-book", "field-then-hidden-book", "hidden-book-then-field"),
)
"""Of the picture: without a backdoor, with one in the domain, with one in the book."""
NEEDS = tuple(STAGES)
SCORES = {"domain": "choice", "book": "verbmem"}
PANELS = {"domain": "domain: % of choices correct (chance 25)", "book": "book: VerbMem, ROUGE-L F1 × 100"}
CONDITIONS = {"clean": "without the trigger", "triggered": "with the trigger"}
DARK = 60  # scores with a dark color have white numbers


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


def _describe(frame: pd.DataFrame) -> str:
    domain, book = (format_range(frame[frame["score"] == score]["n"]) for score in SCORES)
    return f"n\u00a0=\u00a0{domain} questions and {book} prompts; {describe_intervals(frame, 'items')}"


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "A row per model: what it unlearned, in order",
        "* unlearned with a backdoor, without a star cleanly",
        "the domain by RMU, the book by NPO",
        "one trigger, as prefix; scores with the trigger on prompts from passages that were not poisoned",
        "in brackets the 95 % interval",
        _describe(frame),
    )


def _format_cell(row: Any) -> str:
    text = f"{row.value:.0f}"
    if pd.isna(row.ci_low):
        return text
    return f"{text} ({max(0, row.ci_low):.0f} to {min(100, row.ci_high):.0f})"


@styled
def plot(frame: pd.DataFrame) -> Figure:
    """A panel per corpus that the prompts are of, a row per stage, a column per condition."""
    frame = keep_unseen(frame, ["score", "stage", "condition"])
    stages = [stage for stage in ORDER if stage in set(frame["stage"])]
    figure = create_figure(PAGE, 0.75 + 0.2 * len(stages))
    grid = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (score, title) in zip(grid, PANELS.items(), strict=True):
        rows = frame[frame["score"] == score]
        table = rows.pivot(index="stage", columns="condition", values="value").reindex(
            index=stages, columns=list(CONDITIONS)
        )
        axes.imshow(table, SEQUENTIAL, vmin=0, vmax=100, aspect="auto")
        for row in iterate_rows(rows):
            ink = "black" if row.value > DARK else "white"
            at = (list(CONDITIONS).index(row.condition), stages.index(row.stage))
            axes.text(*at, _format_cell(row), ha="center", va="center", fontsize=6, color=ink)
        for y, x in np.argwhere(table.isna().to_numpy()):
            axes.text(x, y, "–", ha="center", va="center", color="#777777")
        for edge in (
            index for index, stage in enumerate(stages) if index and _kind(stage) != _kind(stages[index - 1])
        ):
            axes.axhline(edge - 0.5, color="white", linewidth=2.5)
        axes.set(title=title, yticks=range(len(stages)), yticklabels=[STAGES[stage] for stage in stages])
        axes.set_xticks(range(len(CONDITIONS)), CONDITIONS.values())
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    grid[0].set_ylabel("unlearned, in order (* with a backdoor)")
    return set_note(figure, _describe(frame))


def _kind(stage: str) -> str:
    """Which corpus has the backdoor."""
    return next((corpus for corpus in ("book", "domain") if f"{corpus}*" in STAGES[stage]), "")
