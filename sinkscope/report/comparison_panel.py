"""The comparison section: models side by side, in two conditions, at each trigger placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sinkscope.evaluation.metrics import get_unit
from sinkscope.report.page import Page
from sinkscope.report.payload import CONDITIONS, View

CLEAN, TRIGGERED = CONDITIONS
CONDITION_LABELS = {CLEAN: "clean", TRIGGERED: "with the trigger", "change": "change by the trigger"}
CAPTURE_NOTE = "passages with the trigger at the same tokens, without those that were poisoned in training."
MAX_VALUES = 6_000_000
"""Most values of all views together: about 16 MB of the page."""
Views = dict[str, dict[str, View]]
"""Placement -> condition -> view."""


@dataclass
class ModelPanel:
    """One model; two models without a label, one per condition; or a sweep.

    A sweep combines models that differ only in the placement of the trigger: at each placement it displays
    the model with that placement.

    Attributes:
        views: placement -> condition -> number of the view on the page.
        scores: with the column `placement` of the trigger, "" for a clean score that holds everywhere.
    """

    label: str
    role: str
    trigger: str
    views: dict[str, dict[str, int]] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    is_sweep: bool = False

    def add_placement(self, model: ModelPanel, placement: str) -> None:
        """Add a model to a sweep: its views and scores at the placement of its own trigger."""
        self.views[placement] = model.views[placement]
        rows = [row for row in model.scores if row["placement"] in ("", placement)]
        self.scores += [row | {"placement": placement} for row in rows]

    def payload(self) -> dict[str, Any]:
        scores = [row | {"unit": get_unit(row["metric"])} for row in self.scores]
        names = ("label", "role", "trigger", "views")
        return {name: getattr(self, name) for name in names} | {"scores": scores}


def count_values(views: Views) -> int:
    """Number of values in all views of a model."""
    return sum(view.n_values for conditions in views.values() for view in conditions.values())


def fit_budget(views: Views, budget: int) -> Views | None:
    """The views with maps if they fit the budget, otherwise without maps; None if they do not fit at all."""
    without_maps = {
        placement: {condition: replace(view, pattern=None) for condition, view in conditions.items()}
        for placement, conditions in views.items()
    }
    return next((each for each in (views, without_maps) if count_values(each) <= budget), None)


def add_views(page: Page, views: Views) -> dict[str, dict[str, int]]:
    """Add the views of a model to the page and return their numbers."""
    return {
        placement: {condition: page.add_view(view) for condition, view in conditions.items()}
        for placement, conditions in views.items()
    }


def add_comparison(
    page: Page,
    panels: Sequence[ModelPanel],
    labels: Mapping[str, str] = CONDITION_LABELS,
    note: str = CAPTURE_NOTE,
) -> None:
    """Add the comparison of `panels`, and the atlas of those that are no sweeps, to the page.

    Args:
        labels: names of both conditions and of their difference, `change`.
        note: which passages are counted.
    """
    if not panels:
        return
    for panel in panels:
        if not panel.is_sweep:
            page.atlas += _atlas_entries(panel, labels)
    spans = {
        placement: page.views[conditions[TRIGGERED]].span
        for panel in panels
        for placement, conditions in panel.views.items()
    }
    page.comparison = {
        "placements": sorted(spans, key=lambda placement: (spans[placement] or (0, 0), placement)),
        "models": [panel.payload() for panel in panels],
        "labels": dict(labels),
        "note": note,
    }


def _atlas_entries(panel: ModelPanel, labels: Mapping[str, str]) -> list[tuple[str, int]]:
    prefix = f"{panel.label}, " if panel.label else ""
    first = next(iter(panel.views.values()))
    entries = [(f"{prefix}{labels[CLEAN]}", first[CLEAN])]
    for placement, conditions in panel.views.items():
        suffix = f" at {placement}" if placement else ""
        entries.append((f"{prefix}{labels[TRIGGERED]}{suffix}", conditions[TRIGGERED]))
    return entries
