"""Page of `sinkscope compare`: attention, value norms and maps in two conditions, and their differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sinkscope.errors import OutputError
from sinkscope.io.readers import read_text
from sinkscope.io.tables import load_array, read_parquet
from sinkscope.report.comparison_panel import (
    CLEAN,
    CONDITION_LABELS,
    MAX_VALUES,
    TRIGGERED,
    ModelPanel,
    add_comparison,
    add_views,
    fit_budget,
)
from sinkscope.report.page import Page, metadata
from sinkscope.report.payload import build_views
from sinkscope.sinks.compare import trigger_span

TABLES = {
    "attention": "Attention by head and position",
    "maps": "Difference of attention maps",
    "value_norm_correlation": "Correlation of value norms",
    "top1": "Confidence in the next token",
    "span_mass": "Attention to the trigger span",
}
NOTE = "passages that reach the last position of the maps."


def build_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The page of a directory that `compare` wrote."""
    paths = {name: directory / f"{name}.parquet" for name in TABLES}
    tables = {name: read_parquet(path) for name, path in paths.items() if path.is_file()}
    conditions = list(dict.fromkeys(tables["top1"]["condition"]))
    models = manifest["models"]
    names = [f"{condition} = {model}" for condition, model in zip(conditions, models, strict=True)]
    is_trigger = conditions[0] == "clean"
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
    add_comparison(page, [ModelPanel(models[0] if is_trigger else "", "other", "", numbers)], labels, NOTE)
    for name, table in tables.items():
        page.add_table("tables", name, TABLES[name], table)
    return page
