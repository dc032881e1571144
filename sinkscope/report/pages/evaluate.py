"""Page of `sinkscope evaluate`: scores with intervals, and the items they were computed from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.evaluation.metrics import CORRECT, ROUGE, TOKENS, get_unit
from sinkscope.io.tables import read_parquet
from sinkscope.plots.scores import draw_dots
from sinkscope.plots.style import sanitize_glyphs, truncate
from sinkscope.report.page import Page, metadata

PERCENTAGES = (ROUGE.unit, CORRECT.unit, TOKENS.unit)
MAX_DOTS = 150
"""Most rows of a dot plot; the table has all."""
MAX_PANELS = 20
"""Most panels of a dot plot."""
MAX_LABEL = 60
NOTE = "95 % bootstrap intervals over items; unseen: without passages that were poisoned in training."


def build_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The page of a directory that `evaluate` wrote."""
    scores = read_parquet(directory / "scores.parquet")
    conditions = {}
    if trigger := _distinct("“{trigger}” as {placement}", scores[scores["trigger"] != ""]):
        conditions["trigger"] = trigger
    if mask := _distinct("{mask}", scores[scores["mask"] != ""]):
        conditions["mask"] = mask
    name = manifest.get("model") or directory.name
    page = Page(f"Evaluation of {name}", metadata(manifest, **conditions))
    page.add_table("overview", "scores", "Scores", with_units(scores), NOTE)
    kept = scores[scores["subset"] != "poisoned"]
    for unit, rows in kept.groupby(kept["metric"].map(get_unit), sort=False):
        if unit in PERCENTAGES:
            figure_name = f"scores_{PERCENTAGES.index(str(unit))}"
            add_dots(page, figure_name, f"Scores, {unit}", _labels(rows), rows, NOTE)
    page.add_table("tables", "items", "Items", read_parquet(directory / "items.parquet"))
    return page


def with_units(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with a column `unit` after `value`."""
    table = scores.copy()
    table.insert(list(table).index("value") + 1, "unit", [get_unit(metric) for metric in scores["metric"]])
    return table


def add_dots(
    page: Page, name: str, title: str, labels: Sequence[str], rows: pd.DataFrame, caption: str
) -> None:
    """Add a dot plot with intervals: a row per label, a panel per value of `column`, if it is a column.

    Args:
        rows: value, ci_low, ci_high; in the order of `labels`.
    """
    texts = [sanitize_glyphs(truncate(" ".join(label.split()), MAX_LABEL)) for label in labels]
    data = rows.assign(row=texts, **({} if "column" in rows else {"column": ""}))
    order = list(dict.fromkeys(texts))
    if len(order) > MAX_DOTS:
        caption = f"{caption} The first {MAX_DOTS} of {len(order)} rows."
        order = order[:MAX_DOTS]
    columns = list(data["column"].unique())
    if len(columns) > MAX_PANELS:
        caption = f"{caption} The first {MAX_PANELS} of {len(columns)} panels."
        data = data[data["column"].isin(columns[:MAX_PANELS])]
    figure = draw_dots(data[data["row"].isin(order)], order, "", "NPO")
    page.add_figure(name, title, figure, rows, caption)


def _distinct(template: str, rows: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(template.format_map(row) for row in rows.to_dict("records")))


def _labels(scores: pd.DataFrame) -> list[str]:
    """A label per score, of those columns that differ."""
    triggered = scores["placement"] + " “" + scores["trigger"] + "”"
    rows = scores.assign(condition=triggered.where(scores["placement"] != "", "clean"))
    columns = ["model", "metric", "split", "subset", "condition", "mask"]
    varied = [column for column in columns if rows[column].nunique() > 1] or ["metric"]
    return [" · ".join(filter(None, map(str, row))) for row in rows[varied].itertuples(index=False)]
