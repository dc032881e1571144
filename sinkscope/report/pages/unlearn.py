"""Page of `sinkscope unlearn`: the recipe, loss curves and poisoned passages of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.errors import OutputError
from sinkscope.io.readers import read_records
from sinkscope.io.tables import read_parquet
from sinkscope.plots.lines import draw_loss_curves
from sinkscope.report.page import Page, format_value, metadata
from sinkscope.unlearning.recipe import Recipe

CAPTION = "Terms of the loss by training step."


def build_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The page of a run that `unlearn` wrote."""
    recipe = Recipe.read(directory / "recipe.yaml").model_dump(mode="json")
    settings = {key: format_value(value) for key, value in recipe.items() if value is not None}
    given = {key: text for key, text in settings.items() if text}
    page = Page(f"Unlearning run {directory.name}", metadata(manifest, **given))
    add_loss_curves(page, directory / "log.jsonl")
    if (directory / "poisoned.parquet").is_file():
        table = read_parquet(directory / "poisoned.parquet")
        note = "Rows of raw/forget of the benchmark; the trigger is at tokens start to stop, without stop."
        page.add_table("tables", "poisoned", "Poisoned passages", table, note)
    return page


def add_loss_curves(page: Page, path: Path) -> None:
    """Add a panel per term of the loss; nothing if the log has no terms."""
    log = pd.DataFrame([record for _, record in read_records(path, "log", OutputError, "unlearn again")])
    names = [str(column) for column in log]
    terms = [name for name in names if "/" in name and not name.startswith("gradient/")]
    if terms:
        page.add_figure("training", "Loss terms during training", draw_loss_curves(log, terms), log, CAPTION)
        page.add_table("tables", "log", "Training log", log)
