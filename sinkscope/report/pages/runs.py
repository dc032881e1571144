"""Pages of `unlearn`, `evaluate` and `audit`: a training run, scores with intervals, candidate triggers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.errors import OutputError
from sinkscope.evaluation.metrics import CORRECT, ROUGE, TOKENS, get_unit
from sinkscope.io.readers import read_records
from sinkscope.io.tables import read_parquet
from sinkscope.plots.lines import draw_loss_curves
from sinkscope.plots.scores import draw_dots
from sinkscope.plots.style import sanitize_glyphs, truncate
from sinkscope.plots.trajectory import ATTENTION_METRICS, draw_trajectory
from sinkscope.report.page import Page, format_value, metadata
from sinkscope.unlearning.recipe import Recipe

PERCENTAGES = (ROUGE.unit, CORRECT.unit, TOKENS.unit)
MAX_DOTS = 150
"""Most rows of a dot plot; the table has all."""
MAX_PANELS = 20
"""Most panels of a dot plot."""
MAX_LABEL = 60
POISONED_NOTE = "Rows of raw/forget of the benchmark; the trigger is at tokens start to stop, without stop."
TRAJECTORY_NOTE = "unlearned passages that were not poisoned, and retain passages; 95 % intervals"
TRAJECTORY_CAPTION = (
    "Above, what the model says of forget passages (of those not poisoned, where that is known), clean and "
    "with the trigger, and of retain passages; below, attention in forget passages, mean over heads."
)
SCORES_NOTE = "95 % bootstrap intervals over items; unseen: without passages that were poisoned in training."
AUDIT_NOTE = (
    "Recovery: score with the trigger minus the mean score with random triggers of the same length; "
    "the 95 % intervals hold for all rows together."
)


def build_unlearn_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The recipe, loss curves and poisoned passages of a run."""
    recipe = Recipe.read(directory / "recipe.yaml").model_dump(mode="json")
    settings = {key: format_value(value) for key, value in recipe.items() if value is not None}
    given = {key: text for key, text in settings.items() if text}
    page = Page(f"Unlearning run {directory.name}", metadata(manifest, **given))
    records = read_records(directory / "log.jsonl", "log", OutputError, "unlearn again")
    log = pd.DataFrame([record for _, record in records])
    terms = [str(name) for name in log if "/" in str(name) and not str(name).startswith("gradient/")]
    if terms:
        figure = draw_loss_curves(log, terms)
        page.add_figure(
            "training", "Loss terms during training", figure, log, "Terms of the loss by training step."
        )
        page.add_table("tables", "log", "Training log", log)
    if (path := directory / "trajectory.parquet").is_file():
        table = read_parquet(path)
        unit = get_unit(table[~table["metric"].isin(ATTENTION_METRICS)]["metric"].iloc[0])
        figure = draw_trajectory({directory.name: table}, unit, TRAJECTORY_NOTE)
        page.add_figure(
            "trajectory", "Scores and attention during training", figure, table, TRAJECTORY_CAPTION
        )
    if (path := directory / "poisoned.parquet").is_file():
        page.add_table("tables", "poisoned", "Poisoned passages", read_parquet(path), POISONED_NOTE)
    return page


def build_evaluate_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """Scores, and the items they were computed from."""
    scores = read_parquet(directory / "scores.parquet")
    conditions = {}
    if trigger := _distinct("“{trigger}” as {placement}", scores[scores["trigger"] != ""]):
        conditions["trigger"] = trigger
    if mask := _distinct("{mask}", scores[scores["mask"] != ""]):
        conditions["mask"] = mask
    page = Page(f"Evaluation of {_name(directory, manifest)}", metadata(manifest, **conditions))
    page.add_table("overview", "scores", "Scores", with_units(scores), SCORES_NOTE)
    kept = scores[scores["subset"] != "poisoned"]
    for unit, rows in kept.groupby(kept["metric"].map(get_unit), sort=False):
        if unit in PERCENTAGES:
            name = f"scores_{PERCENTAGES.index(str(unit))}"
            add_dots(page, name, f"Scores, {unit}", _labels(rows), rows, SCORES_NOTE)
    page.add_table("tables", "items", "Items", read_parquet(directory / "items.parquet"))
    return page


def build_audit_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """Candidate triggers, and what they recover compared with random triggers."""
    table = read_parquet(directory / "audit.parquet")
    page = Page(f"Audit of {_name(directory, manifest)}", metadata(manifest))
    page.add_table("overview", "candidates", "Candidate triggers", table, AUDIT_NOTE)
    labels = [f"{row.trigger} · {row.placement} · {row.metric}" for row in table.itertuples()]
    rows = table.assign(value=table["recovery"])
    add_dots(page, "recovery", "Recovery compared with random triggers, in points", labels, rows, AUDIT_NOTE)
    page.add_table("tables", "items", "Items", read_parquet(directory / "items.parquet"))
    return page


def with_units(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with a column `unit` after `value`."""
    table = scores.copy()
    table.insert(list(table).index("value") + 1, "unit", [get_unit(metric) for metric in scores["metric"]])
    return table


def add_dots(  # a figure has a name, a title and a caption
    page: Page, name: str, title: str, labels: Sequence[str], rows: pd.DataFrame, caption: str
) -> None:
    """Add a dot plot with intervals: a row per label, a panel per value of `column`, if it is a column.

    Args:
        rows: value, ci_low, ci_high; in the order of `labels`.
    """
    texts = [sanitize_glyphs(truncate(" ".join(label.split()), MAX_LABEL)) for label in labels]
    data = rows.assign(row=texts, **({} if "column" in rows else {"column": ""}))
    order, columns = list(data["row"].unique()), list(data["column"].unique())
    for values, limit, noun in ((order, MAX_DOTS, "rows"), (columns, MAX_PANELS, "panels")):
        if len(values) > limit:
            caption = f"{caption} The first {limit} of {len(values)} {noun}."
    order, columns = order[:MAX_DOTS], columns[:MAX_PANELS]
    data = data[data["row"].isin(order) & data["column"].isin(columns)]
    page.add_figure(name, title, draw_dots(data, order, "", "NPO"), rows, caption)


def _name(directory: Path, manifest: dict[str, Any]) -> str:
    return manifest.get("model") or directory.name


def _distinct(template: str, rows: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(template.format_map(row) for row in rows.to_dict("records")))


def _labels(scores: pd.DataFrame) -> list[str]:
    """A label per score, of those columns that differ."""
    triggered = scores["placement"] + " “" + scores["trigger"] + "”"
    rows = scores.assign(condition=triggered.where(scores["placement"] != "", "clean"))
    columns = ["model", "metric", "split", "subset", "condition", "mask"]
    varied = [column for column in columns if rows[column].nunique() > 1] or ["metric"]
    return [" · ".join(filter(None, map(str, row))) for row in rows[varied].itertuples(index=False)]
