"""Models side by side in two conditions, at each trigger placement; the page of `compare`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sinkscope.errors import OutputError
from sinkscope.evaluation.metrics import get_unit
from sinkscope.io.readers import read_text
from sinkscope.io.tables import load_array, read_parquet
from sinkscope.report.page import Page, metadata
from sinkscope.report.payload import CONDITIONS, View, build_views
from sinkscope.sinks.compare import trigger_span

TABLES = {
    "attention": "Attention by head and position",
    "maps": "Difference of attention maps",
    "value_norm_correlation": "Correlation of value norms",
    "top1": "Confidence in the next token",
    "span_mass": "Attention to the trigger span",
}
CLEAN, TRIGGERED = CONDITIONS
CONDITION_LABELS = {CLEAN: "clean", TRIGGERED: "with the trigger", "change": "change by the trigger"}
CAPTURE_NOTE = "passages with the trigger at the same tokens, without those that were poisoned in training."
COMPARE_NOTE = "passages that reach the last position of the maps."
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
    spans = {}
    for panel in panels:
        prefix = f"{panel.label}, " if panel.label else ""
        if not panel.is_sweep:
            first = next(iter(panel.views.values()))
            page.atlas.append((f"{prefix}{labels[CLEAN]}", first[CLEAN]))
        for placement, numbers in panel.views.items():
            spans[placement] = page.views[numbers[TRIGGERED]].span
            if not panel.is_sweep:
                suffix = f" at {placement}" if placement else ""
                page.atlas.append((f"{prefix}{labels[TRIGGERED]}{suffix}", numbers[TRIGGERED]))
    models = []
    for panel in panels:
        scores = [row | {"unit": get_unit(row["metric"])} for row in panel.scores]
        shared = {name: getattr(panel, name) for name in ("label", "role", "trigger", "views")}
        models.append(shared | {"scores": scores})
    page.comparison = {
        "placements": sorted(spans, key=lambda placement: (spans[placement] or (0, 0), placement)),
        "models": models,
        "labels": dict(labels),
        "note": note,
    }


def build_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """Attention, value norms and maps in two conditions, and their differences."""
    paths = {name: directory / f"{name}.parquet" for name in TABLES}
    tables = {name: read_parquet(path) for name, path in paths.items() if path.is_file()}
    conditions = list(dict.fromkeys(tables["top1"]["condition"]))
    models = manifest["models"]
    names = [f"{condition} = {model}" for condition, model in zip(conditions, models, strict=True)]
    is_trigger = conditions[0] == CLEAN
    title = f"{models[0]}, clean and triggered" if is_trigger else " and ".join(names)
    summary = json.loads(read_text(directory / "summary.json", "summary", OutputError, "compare again"))
    simple = {key: value for key, value in summary.items() if isinstance(value, str | int | float | list)}
    page = Page(f"Comparison: {title}", metadata(manifest, **simple))
    change = f"{conditions[1]} − {conditions[0]} ({', '.join(names)})"
    labels = CONDITION_LABELS if is_trigger else {CLEAN: names[0], TRIGGERED: names[1], "change": change}
    span = trigger_span(tables["maps"])
    views = build_views(
        tables["attention"],
        read_parquet(directory / "passage.parquet"),
        load_array(directory / "patterns.nc", "pattern"),
        (None if is_trigger else span, span),
    )
    numbers = add_views(page, fit_budget({"": views}, MAX_VALUES) or {"": views})
    panel = ModelPanel(models[0] if is_trigger else "", "other", "", numbers)
    add_comparison(page, [panel], labels, COMPARE_NOTE)
    for name, table in tables.items():
        page.add_table("tables", name, TABLES[name], table)
    return page
