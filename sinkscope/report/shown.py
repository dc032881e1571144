"""Models side by side on the page: what was seen of each in two states, by default clean and with the trigger, place by place, and what it scored there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import xarray as xr

from sinkscope.evaluation.metrics import get_unit
from sinkscope.report.contents import Page
from sinkscope.report.views import View
from sinkscope.sinks.condition_captures import CLEAN, TRIGGERED

FIRST, SECOND = STATES = (CLEAN, TRIGGERED)
WORDS = {FIRST: "clean", SECOND: "with the trigger", "change": "change by the trigger"}
CAPTURED = (
    "passages in which the trigger stands at the same tokens, without those that were poisoned in training."
)
BUDGET = 6_000_000
"""Numbers of all views together at most: some 16 MB of the page."""
Span = tuple[int, int]


@dataclass
class Shown:
    """A model, or two without a label, one in each state, or a family of models that differ in the trigger's place alone: place → state → view, and scores.

    A score counts at the trigger's `place`; a clean one of a family at the place of that member's own trigger, of a single model everywhere (`""`).
    """

    label: str
    role: str
    trigger: str
    views: dict[str, dict[str, View]] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    family: bool = False

    def take(self, member: Shown, place: str) -> None:
        """Into a family: what was seen of a member, and what it scored, at the place of its own trigger."""
        self.views[place] = member.views[place]
        self.scores += [row | {"place": place} for row in member.scores if row["place"] in ("", place)]

    def fitted(self, room: int) -> Shown | None:
        """With maps if there is room for them, without otherwise; None where there is no room at all."""
        return next((each for each in (self, self._without_maps()) if each.size() <= room), None)

    def size(self) -> int:
        return sum(view.size() for states in self.views.values() for view in states.values())

    def _without_maps(self) -> Shown:
        views = {
            place: {state: replace(view, pattern=None) for state, view in states.items()}
            for place, states in self.views.items()
        }
        return replace(self, views=views)


def seen(
    attention: pd.DataFrame, words: pd.DataFrame, maps: xr.DataArray, spans: tuple[Span | None, Span | None]
) -> dict[str, View]:
    """Two states of one model at one place.

    Args:
        attention: as `attention_frame` has it.
        words: condition, position, text of a passage in both states.
        maps: condition × layer × head × query × key in bins of its attribute `bin`.
        spans: where the trigger stands in the first state and in the second.
    """
    rows = attention.sort_values(["layer", "head", "position"])
    shape = tuple(rows[column].nunique() for column in ("layer", "head", "position"))
    texts = [
        mine.sort_values("position")["text"].tolist() for _, mine in words.groupby("condition", sort=False)
    ]
    baseline = rows["uniform"].to_numpy().reshape(shape)[:, 0]
    views = {}
    for number, (state, side, span) in enumerate(zip(STATES, ("first", "second"), spans, strict=True)):
        statistics = {
            name: rows[f"{name}_{side}"].to_numpy().reshape(shape) for name in ("alpha", "value_norm")
        }
        n = rows["passages"].to_numpy().reshape(shape)[0, 0]
        views[state] = View(
            statistics,
            n,
            baseline,
            maps.isel(condition=number).values,
            int(maps.attrs["bin"]),
            texts[number],
            span=span,
        )
    return views


def side_by_side(
    page: Page, models: Sequence[Shown], words: Mapping[str, str] = WORDS, counted: str = CAPTURED
) -> None:
    """Put every view of the models on the page once; show the models beside each other, and those that are no families in the atlas."""
    if not models:
        return
    numbers: dict[int, int] = {}

    def number(view: View) -> int:
        if id(view) not in numbers:
            numbers[id(view)] = len(page.views)
            page.views.append(view)
        return numbers[id(view)]

    shown = []
    for model in models:
        views = {
            place: {state: number(view) for state, view in states.items()}
            for place, states in model.views.items()
        }
        scores = [row | {"unit": get_unit(row["metric"])} for row in model.scores]
        shown.append(
            {
                "label": model.label,
                "role": model.role,
                "trigger": model.trigger,
                "views": views,
                "scores": scores,
            }
        )
        if not model.family:
            first = next(iter(views.values()))
            said = f"{model.label}, " if model.label else ""
            page.atlas.append((f"{said}{words[FIRST]}", first[FIRST]))
            page.atlas += [
                (f"{said}{words[SECOND]}{f' at {place}' if place else ''}", each[SECOND])
                for place, each in views.items()
            ]
    starts = {place: each[SECOND].span for model in models for place, each in model.views.items()}
    places = sorted(starts, key=lambda place: (starts[place] or (0, 0), place))
    page.compare = {"places": places, "models": shown, "words": words, "counted": counted}
