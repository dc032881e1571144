"""What a page holds, and how it is put into one HTML file that asks nothing of any network and runs no code but its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from sinkscope.plots.interactive import diverging_scale
from sinkscope.plots.style import FRAME
from sinkscope.report.views import View
from sinkscope.sinks.sink_tokens import MIN_QUERIES
from sinkscope.text import PART

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("tools", "views", "charts", "tables", "strip", "atlas", "compare", "main")
SECTIONS = {
    "overview": "Overview",
    "atlas": "Sink atlas",
    "compare": "Compare",
    "pictures": "Pictures",
    "runs": "Runs",
    "tables": "Tables",
}
GENERATOR = "sinkscope report"
ROWS = 5000
"""Of one table on the page; the files have all."""


@dataclass
class Page:
    """What is shown of one directory.

    Attributes:
        facts: what was done, as words and their values.
        views: everything that the atlas and the comparison show; these two name views by their number.
        atlas: label and view, in order.
        compare: places of the trigger, models with their views by place and state, scores.
        lead: what the reader sees here, in a few sentences.
    """

    title: str
    facts: list[tuple[str, str]]
    views: list[View] = field(default_factory=list)
    atlas: list[tuple[str, int]] = field(default_factory=list)
    compare: dict[str, Any] | None = None
    pictures: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    lead: str = ""

    def table(
        self,
        section: str,
        name: str,
        title: str,
        data: pd.DataFrame,
        note: str = "",
        *,
        rows: int | None = ROWS,
    ) -> None:
        """Add a table to a section, its first `rows` if it is longer."""
        if data.empty:
            return
        if rows is not None and len(data) > rows:
            note = f"{note} The first {rows} of {len(data)} rows; the directory has all.".strip()
        self.tables.append(
            {
                "section": section,
                "name": name,
                "title": title,
                "note": note,
                **cells(data if rows is None else data.head(rows)),
            }
        )

    def picture(self, name: str, title: str, figure: Figure, numbers: pd.DataFrame) -> None:
        """Add a plotly figure and its numbers."""
        drawn = json.loads(figure.to_json(engine="json"))
        drawn["layout"].pop("template", None)
        self.pictures.append({"name": name, "title": title, "figure": drawn, "numbers": cells(numbers)})

    def html(self) -> str:
        """The whole file."""
        data = {
            "views": [view.payload() for view in self.views],
            "atlas": [{"label": label, "view": view} for label, view in self.atlas],
            "compare": self.compare,
            "pictures": self.pictures,
            "tables": self.tables,
            "constants": {
                "queries": MIN_QUERIES,
                "part": PART,
                "frame": FRAME,
                "diverging": diverging_scale(),
            },
        }
        used = {"overview", *(table["section"] for table in self.tables)}
        used |= {name for name in ("atlas", "compare", "pictures") if getattr(self, name)}
        text = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        scripts = [get_plotlyjs(), *_scripts()]
        body = _body(self.title, self.lead, self.facts, used)
        return "\n".join(
            [_head(self.title, scripts), body, _data(text), *map(_script, scripts), "</body></html>", ""]
        )


def cells(data: pd.DataFrame) -> dict[str, Any]:
    """Columns and rows, null for what is missing."""
    plain = data.astype(object).where(data.notna(), None)
    return {
        "columns": [str(column) for column in data.columns],
        "rows": [[_cell(value) for value in row] for row in plain.itertuples(index=False)],
    }


def _cell(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _finite(value: Any) -> Any:
    """JSON has no numbers that are none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


@cache
def _scripts() -> tuple[str, ...]:
    return tuple((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)


def _head(title: str, scripts: Sequence[str]) -> str:
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<meta name='generator' content='{GENERATOR}'><title>{html.escape(title)}</title><style>{style}</style></head>"
    )


def _body(title: str, lead: str, facts: Sequence[tuple[str, str]], used: set[str]) -> str:
    shown = {name: words for name, words in SECTIONS.items() if name in used}
    links = "".join(f"<a href='#{name}'>{words}</a>" for name, words in shown.items())
    told = "".join(f"<dt>{html.escape(word)}</dt><dd>{html.escape(value)}</dd>" for word, value in facts)
    overview = f"{f'<p>{html.escape(lead)}</p>' if lead else ''}<dl>{told}</dl>"
    sections = "".join(
        f"<section id='{name}'><h2>{words}</h2>{overview if name == 'overview' else ''}<div class='body'></div></section>"
        for name, words in shown.items()
    )
    return (
        f"<body><a class='skip' href='#overview'>to the content</a><h1>{html.escape(title)}</h1>"
        f"<nav aria-label='sections'>{links}<button type='button' id='theme'>light / dark</button></nav>"
        f"<noscript><p>The charts and tables of this page need JavaScript, which it brings itself.</p></noscript><main>{sections}</main>"
        "<div id='spoken' class='skip' aria-live='polite'></div>"
    )


def _data(text: str) -> str:
    """JSON that no text in it can leave: `<` never appears."""
    return f"<script type='application/json' id='report-data'>{text.replace('<', chr(92) + 'u003c')}</script>"


def _script(text: str) -> str:
    return f"<script>{text}</script>"
