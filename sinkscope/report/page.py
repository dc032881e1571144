"""The HTML page: one file that makes no network request and runs no code but its own."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from sinkscope.plots.style import DIVERGING, FRAME, METADATA, SETTINGS, color
from sinkscope.report.payload import View
from sinkscope.sinks.sink_map import MIN_QUERIES
from sinkscope.text import CONTINUATION

TEMPLATE = Path(__file__).with_name("template.html.j2")
ASSETS = Path(__file__).with_name("assets")
MODULES = "data colors dom view tables charts heatmaps tokens atlas compare main".split()
"""JavaScript modules in the order of their imports."""
SECTIONS = {
    "overview": "Overview",
    "atlas": "Sink atlas",
    "comparison": "Comparison",
    "figures": "Figures",
    "runs": "Runs",
    "tables": "Tables",
}
GENERATOR = "sinkscope report"
MAX_TABLE_ROWS = 5000


@dataclass
class Page:
    """Content of the page of one result directory.

    Attributes:
        metadata: names and values of what was run.
        views: everything that the atlas and the comparison display; both refer to views by number.
        atlas: label and view number, in order.
        comparison: trigger placements, models with their views by placement and condition, scores.
        figures: static figures (SVG) with their data.
    """

    title: str
    metadata: list[tuple[str, str]]
    intro: str = ""
    views: list[View] = field(default_factory=list)
    atlas: list[tuple[str, int]] = field(default_factory=list)
    comparison: dict[str, Any] | None = None
    figures: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)

    def add_view(self, view: View) -> int:
        """Add a view and return its number."""
        self.views.append(view)
        return len(self.views) - 1

    def add_table(  # a table has a section, a name, a title and a note
        self, section: str, name: str, title: str, data: pd.DataFrame, note: str = "", is_limited: bool = True
    ) -> None:
        """Add a table to a section, if it has rows; at most `MAX_TABLE_ROWS` if it `is_limited`."""
        if data.empty:
            return
        if is_limited and len(data) > MAX_TABLE_ROWS:
            count = f"The first {MAX_TABLE_ROWS} of {len(data)} rows; the result directory has all."
            note = f"{note} {count}".strip()
            data = data.head(MAX_TABLE_ROWS)
        table = {"section": section, "name": name, "title": title, "note": note}
        self.tables.append(table | _table_payload(data))

    def add_figure(
        self, name: str, title: str, figure: Figure, data: pd.DataFrame, caption: str = ""
    ) -> None:
        """Add a matplotlib figure as SVG, with its data."""
        buffer = io.BytesIO()
        with matplotlib.rc_context(SETTINGS):
            figure.savefig(buffer, format="svg", metadata=METADATA["svg"])
        self.add_svg(name, title, buffer.getvalue(), data, caption)

    def add_svg(self, name: str, title: str, svg: bytes, data: pd.DataFrame, caption: str = "") -> None:
        """Add an SVG figure. As the source of an image it runs no script and loads nothing."""
        figure = {"name": name, "title": title, "caption": caption, "svg": base64.b64encode(svg).decode()}
        self.figures.append(figure | {"data": _table_payload(data.head(MAX_TABLE_ROWS))})

    def render(self) -> str:
        """The HTML file."""
        plotly = [get_plotlyjs()] if self.views else []
        scripts = [*plotly, bundle_scripts(MODULES)]
        used = {"overview", *(table["section"] for table in self.tables)}
        used |= {name for name in ("atlas", "comparison", "figures") if getattr(self, name)}
        environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,  # a page that does not end with a line break is incomplete
        )
        return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
            page=self,
            generator=GENERATOR,
            policy=_content_security_policy(scripts),
            style=(ASSETS / "page.css").read_text(encoding="utf-8"),
            sections={name: title for name, title in SECTIONS.items() if name in used},
            data=self._json(),
            scripts=scripts,
        )

    def _json(self) -> str:
        """The data of the page as JSON without `<`, so that no text in it can end the script element."""
        data = {
            "views": [view.payload() for view in self.views],
            "atlas": [{"label": label, "view": view} for label, view in self.atlas],
            "comparison": self.comparison,
            "figures": [{key: each[key] for key in ("name", "title", "data")} for each in self.figures],
            "tables": self.tables,
            "constants": {"minQueries": MIN_QUERIES, "tokenPart": CONTINUATION, "colors": _chart_colors()},
        }
        finite = _replace_nan(data)
        text = json.dumps(finite, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c")


def metadata(manifest: Mapping[str, Any], **more: Any) -> list[tuple[str, str]]:
    """What was run, from the manifest of a result directory; versions and content hash come last."""
    entries = {"command": f"sinkscope {manifest['kind']}", **more}
    for key in ("model", "models", "benchmark", "passages", "epsilon", "seed", "randoms", "n_random", "jobs"):
        if manifest.get(key) not in (None, ""):
            entries.setdefault(key, manifest[key])
    entries["versions"] = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    entries["content hash"] = manifest["identity"]
    return [(key.replace("_", " "), format_value(value)) for key, value in entries.items()]


def format_value(value: Any) -> str:
    """A setting as text: lists by commas, groups of keys without those that are not set."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_value(each)}" for key, each in value.items() if each is not None)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table_payload(data: pd.DataFrame) -> dict[str, Any]:
    """Columns and rows of a table, null for missing values."""
    plain = data.astype(object).where(data.notna(), None)
    rows = [[_json_cell(value) for value in row] for row in plain.itertuples(index=False)]
    return {"columns": [str(column) for column in data.columns], "rows": rows}


def _json_cell(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, str | int | float) else str(value)


def bundle_scripts(modules: Sequence[str]) -> str:
    """The modules as one script with a private scope, without their imports and `export` keywords."""
    sources = [(ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in modules]
    code = re.sub(r"^import [^;]*;\n|^export ", "", "\n".join(sources), flags=re.M)
    return f'(() => {{\n"use strict";\n{code}}})();'


def _content_security_policy(scripts: list[str]) -> str:
    """A policy that allows `scripts`, by hash, and images in the page; no request and no other script."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _chart_colors() -> dict[str, Any]:
    steps = matplotlib.colormaps[DIVERGING](np.linspace(0, 1, 11))
    return {
        "head": color("NPO"),
        "all": color("retain"),
        "valueNorm": color("prefix"),
        "selected": color("prefix"),
        "trigger": FRAME,
        "diverging": [[index / 10, to_hex(step)] for index, step in enumerate(steps)],
    }


def _replace_nan(value: Any) -> Any:
    """Numbers that JSON lacks (NaN, infinity) become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _replace_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(each) for each in value]
    return value
