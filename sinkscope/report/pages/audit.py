"""Page of `sinkscope audit`: candidate triggers and what they recover compared with random triggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sinkscope.io.tables import read_parquet
from sinkscope.report.page import Page, metadata
from sinkscope.report.pages.evaluate import add_dots

NOTE = (
    "Recovery: score with the trigger minus the mean score with random triggers of the same length; "
    "the 95 % intervals hold for all rows together."
)


def build_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The page of a directory that `audit` wrote."""
    table = read_parquet(directory / "audit.parquet")
    page = Page(f"Audit of {manifest.get('model') or directory.name}", metadata(manifest))
    page.add_table("overview", "candidates", "Candidate triggers", table, NOTE)
    labels = [f"{row.trigger} · {row.placement} · {row.metric}" for row in table.itertuples()]
    rows = table.assign(value=table["recovery"])
    add_dots(page, "recovery", "Recovery compared with random triggers, in points", labels, rows, NOTE)
    page.add_table("tables", "items", "Items", read_parquet(directory / "items.parquet"))
    return page
