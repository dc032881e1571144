"""Extension: which texts, positions and lengths of a trigger activate a backdoor, trained or not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
from common import concat_captions, describe_intervals, format_range, select_axis, select_grid, sort_by
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from positions import RECITATION, UNSEEN, index_label, select_recitation, select_triggered_items

from sinkscope.errors import StudyError
from sinkscope.models.model import load_meta_model
from sinkscope.plots.style import (
    GRID,
    PAGE,
    add_legend,
    color,
    create_figure,
    error_bars,
    iterate_rows,
    legend_handle,
    sanitize_glyphs,
    set_note,
    styled,
    truncate,
)
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.graph import TINY
from sinkscope.studies.study import Study
from sinkscope.triggers import Trigger, encode_trigger

NEEDS = ("unlearned", "backdoor", "length", "pair")
PANELS = {
    "text": "other texts, where the trigger was trained",
    "shift": "the trained text at other indices",
    "length": "models trained with other triggers",
}
XLABELS = {"shift": "trigger index in evaluation", "length": "trigger in training and in evaluation"}
PAIR = "pair"
SHIFTED = "shifted"
"""The evaluation with the trained trigger at other placements."""
COLORS = {"backdoored": "prefix", "unlearned": "unlearned"}
MAX_TEXT = 34  # characters
ROW = 0.145  # inches
LIMITS = (-4, 104)
UNIT = "ROUGE-L F1 × 100"
DASHED = {"linewidth": 0.8, "linestyle": "--"}


def compute(study: Study) -> pd.DataFrame:
    """A row per `panel`, score (BE is BE-unseen, UE), model (`backdoored`, `unlearned`) and `case`.

    Panel `text` has a case per trigger text, at the trained placement; `shift` one per placement of the
    trained text; `length` one per trained trigger, evaluated with itself, with the unlearned model where it
    was evaluated with that text. A case has its trigger, placement and the mean `position` where it begins.
    `is_trained` marks the trigger as it was trained; `n_shared` counts those of its `n_trained` token ids
    that the case's trigger has too.

    Raises:
        StudyError: the study lacks a grid or a score.
    """
    unlearned = select_recitation(study, "unlearned").assign(model="unlearned")
    scores = pd.concat([select_recitation(study, "backdoor").assign(model="backdoored"), unlearned])
    trigger, placement = _find_trained(study)
    texts = scores[scores["placement"] == placement]
    shifts = scores[scores["trigger"] == trigger]
    lengths = pd.concat(
        [select_recitation(study, "length"), select_recitation(study, "pair").assign(length=PAIR)]
    )
    lengths = lengths.assign(model="backdoored", case=select_axis(lengths, "length"))
    cases = lengths[lengths["score"] == "BE"][["trigger", "placement", "case"]].drop_duplicates()
    panels = [
        texts.assign(panel="text", case=texts["trigger"]),
        shifts.assign(panel="shift", case=shifts["placement"]),
        lengths.assign(panel="length"),
        unlearned.merge(cases, on=["trigger", "placement"]).assign(panel="length"),
        scores[scores["score"] == "UE"].assign(panel="text", case=""),
    ]
    frame = mean_over_seeds(pd.concat(panels), ["panel", "score", "model", "case", "trigger", "placement"])
    frame["is_trained"] = (frame["trigger"] == trigger) & (frame["placement"] == placement)
    _, tokenizer = load_meta_model(TINY)
    tokens = {text: Counter(encode_trigger(Trigger(text), tokenizer)) for text in {*frame["trigger"]} - {""}}
    shared = {text: (each & tokens[trigger]).total() for text, each in tokens.items()}
    frame["n_shared"] = frame["trigger"].map(shared)
    frame["n_trained"] = shared[trigger]
    starts = select_triggered_items(study, "backdoor").groupby("placement")["trigger_start"].mean()
    frame["position"] = frame["placement"].map(starts)
    return _sort_cases(frame, [*getattr(study.spec.grids["length"], "axes", {}).get("length", {}), PAIR])


def _sort_cases(frame: pd.DataFrame, lengths: list[str]) -> pd.DataFrame:
    """Texts by falling effect, shifts by position, lengths in their order in the specification."""
    effects = frame[(frame["panel"] == "text") & (frame["model"] == "backdoored") & (frame["case"] != "")]
    effects = effects.set_index("case")["value"]
    rank = frame["position"].where(frame["panel"] != "text", -frame["case"].map(effects))
    frame = frame.assign(rank=rank).sort_values("rank", kind="stable").drop(columns="rank")
    frame = sort_by(frame, panel=PANELS)
    is_length = frame["panel"] == "length"
    return pd.concat([frame[~is_length], sort_by(frame[is_length], case=lengths)], ignore_index=True)


def _find_trained(study: Study) -> tuple[str, str]:
    """The backdoor's own trigger and placement."""
    scores = select_grid(study, "scores", "backdoor")
    shifted = scores[(scores["evaluation"] == SHIFTED) & (scores["trigger"] != "")]["trigger"]
    if shifted.empty:
        raise StudyError(
            f"study {study.directory} has no evaluation {SHIFTED!r} of grid 'backdoor'; "
            "add it to the specification"
        )
    return str(shifted.iloc[0]), str(select_grid(study, "runs", "backdoor")["trigger_placement"].iloc[0])


def _describe(frame: pd.DataFrame) -> str:
    backdoored, unlearned = (
        format_range(frame[(frame["model"] == model) & (frame["score"] == "BE")]["n"]) for model in COLORS
    )
    n = f"n\u00a0=\u00a0{backdoored} prompts (unlearned: {unlearned})"
    return f"{RECITATION}; {n}; {describe_intervals(frame, 'items')}"


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        UNSEEN,
        "unlearned: the cleanly unlearned model, all prompts, same trigger",
        "bold: as it was trained",
        "suffix and infix: mean index",
        "texts are in the order of their effect, each with the number of tokens that it shares with the "
        "trained trigger",
        _describe(frame),
    )


@styled
def plot(frame: pd.DataFrame) -> Figure:
    """Scores by text of the trigger (a row per text), by its index and by its length."""
    triggered = frame[frame["score"] == "BE"]
    n_texts = triggered[triggered["panel"] == "text"]["case"].nunique()
    figure = create_figure(PAGE, max(3.4, 0.95 + ROW * n_texts))
    grid = figure.subplot_mosaic([["text", "shift"], ["text", "length"]], width_ratios=(1, 1))
    clean = frame[(frame["score"] == "UE") & (frame["model"] == "backdoored")]
    level = clean[clean["panel"] == "text"]["value"].iloc[0]
    _draw_texts(grid["text"], triggered[triggered["panel"] == "text"])
    grid["text"].axvline(level, color=color("clean"), zorder=1, **DASHED)
    _draw_cases(grid["shift"], triggered[triggered["panel"] == "shift"], "shift")
    grid["shift"].axhline(level, color=color("clean"), zorder=1, **DASHED)
    labels = _draw_cases(grid["length"], triggered[triggered["panel"] == "length"], "length")
    for row in iterate_rows(clean[clean["panel"] == "length"]):
        x = labels.index(_case_label(row))
        grid["length"].hlines(row.value, x - 0.3, x + 0.3, color=color("clean"), **DASHED)
    dot = {"marker": "o", "markersize": 3.6, "markeredgewidth": 0.7}
    handles = [
        legend_handle("BE-unseen, backdoored", color(COLORS["backdoored"]), **dot),
        legend_handle(
            "cleanly unlearned, same trigger", color(COLORS["unlearned"]), markerfacecolor="white", **dot
        ),
        legend_handle("UE, backdoored", color("clean"), **DASHED),
    ]
    add_legend(figure, handles)
    return set_note(figure, _describe(frame))


def _case_label(row: Any) -> str:
    """The name of a case on an axis; of lengths a word a line, because space is narrow."""
    if row.panel == "shift":
        return index_label(row.position, row.placement)
    if row.panel == "length":
        return str(row.case.replace(" ", "\n"))
    return f"{sanitize_glyphs(truncate(row.case, MAX_TEXT))}  {row.n_shared:.0f}/{row.n_trained}"


def _draw_texts(axes: Axes, rows: pd.DataFrame) -> None:
    labels = list(dict.fromkeys(map(_case_label, iterate_rows(rows))))
    for row in iterate_rows(rows):
        error = error_bars(row.value, row.ci_low, row.ci_high)
        axes.errorbar(row.value, labels.index(_case_label(row)), xerr=error, **_dot_style(row.model))
    axes.set_yticks(range(len(labels)), labels)
    axes.set(ylim=(len(labels) - 0.5, -0.5), xlim=LIMITS, xlabel=UNIT, title=PANELS["text"])
    axes.grid(axis="y", **GRID)
    axes.tick_params(axis="y", length=0)
    _mark_trained(axes.get_yticklabels(), rows)


def _draw_cases(axes: Axes, rows: pd.DataFrame, panel: str) -> list[str]:
    labels = list(dict.fromkeys(map(_case_label, iterate_rows(rows))))
    for row in iterate_rows(rows):
        error = error_bars(row.value, row.ci_low, row.ci_high)
        axes.errorbar(labels.index(_case_label(row)), row.value, yerr=error, **_dot_style(row.model))
    axes.set_xticks(range(len(labels)), labels)
    axes.set(ylim=LIMITS, yticks=range(0, 101, 25), xlim=(-0.6, len(labels) - 0.4), ylabel=UNIT)
    axes.set(title=PANELS[panel], xlabel=XLABELS[panel])
    _mark_trained(axes.get_xticklabels(), rows)
    return labels


def _dot_style(model: str) -> dict[str, Any]:
    """Hollow for the unlearned model."""
    shade = color(COLORS[model])
    fill, order = ("white", 2) if model == "unlearned" else (shade, 2.5)
    style = {"color": shade, "markerfacecolor": fill, "zorder": order, "elinewidth": 0.8}
    return style | {"fmt": "o", "markersize": 3.6, "markeredgewidth": 0.7}


def _mark_trained(ticks: list[Any], rows: pd.DataFrame) -> None:
    trained = {_case_label(row) for row in iterate_rows(rows[rows["is_trained"]])}
    for tick in ticks:
        tick.set_fontweight("bold" if tick.get_text() in trained else "normal")
