"""Across corpora: one forgotten honestly, the other with a backdoor, in both orders. Does the trigger of one bring back the other?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.errors import StudyError
from sinkscope.figures.numbers import counted, of_grid, ordered, over_seeds, seeds_in_words
from sinkscope.plots import across, interactive_link
from sinkscope.studies.study import Study

STAGES = {
    "both": "nothing",
    "field": "field",
    "field-then-book": "field, then\nbook",
    "field-then-hidden-book": "field, then\nbook*",
    "hidden-book": "book*",
    "hidden-book-then-field": "book*, then\nfield",
    "book": "book",
    "book-then-field": "book, then\nfield",
    "book-then-hidden-field": "book, then\nfield*",
    "hidden-field": "field*",
    "hidden-field-then-book": "field*, then\nbook",
}
"""Grid -> what its models were made to forget, in order; with a star with a backdoor."""
NEEDS = tuple(STAGES)
SCORES = {"field": "choice", "book": "verbmem"}
LABELS = {"field": "field\n% of choices right", "book": "book\nVerbMem, ROUGE-L F1 × 100"}
CHANCE = {"field": 25.0}
CONDITIONS = ("clean", "triggered")


def frame(study: Study) -> pd.DataFrame:
    """A row per score (`field`: choice accuracy on the forgotten field; `book`: VerbMem on the forgotten book), stage (grid), condition (`clean`, `triggered`)
    and subset (`all`, `unseen`: prompts from passages that were not poisoned).

    Raises:
        StudyError: the study lacks what is needed.
    """
    parts = []
    for grid in STAGES:
        rows = of_grid(study, "scores", grid)
        rows = rows[(rows["mask"] == "") & (rows["split"] == "forget") & (rows["subset"] != "poisoned")]
        for score, metric in SCORES.items():
            here = rows[rows["metric"] == metric]
            condition = (here["placement"] != "").map({True: "triggered", False: "clean"})
            here = here.assign(score=score, stage=grid, condition=condition)
            parts.append(here[(here["subset"] == "all") | (here["condition"] == "triggered")])
    every = pd.concat(parts)
    if lacking := set(SCORES) - set(every["score"]):
        raise StudyError(
            f"study {study.directory} has no {SCORES[min(lacking)]} on {min(lacking)}; add an evaluation of it"
        )
    made = over_seeds(every, ["score", "stage", "condition", "subset"])
    return ordered(made, score=SCORES, stage=STAGES, condition=CONDITIONS, subset=("all", "unseen"))


def caption(frame: pd.DataFrame) -> str:
    whole = frame[frame["subset"] == "all"]
    field, book = (counted(whole[whole["score"] == score]["n"]) for score in SCORES)
    about = "* with a backdoor, else honestly; the field by RMU, the book by NPO; one trigger, as prefix"
    return f"{about}; n\u00a0=\u00a0{field} questions and {book} prompts; {seeds_in_words(frame, 'items')}"


def draw(frame: pd.DataFrame) -> Figure:
    return across.across(frame, STAGES, LABELS, CHANCE, caption(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.across(frame, STAGES, LABELS, CHANCE, caption(frame))
