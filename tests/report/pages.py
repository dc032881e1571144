"""Reading a page in a test."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sinkscope.report import write_report

DATA = re.compile(r'<script type="application/json" id="report-data">(.*?)</script>', re.S)


def report_page(directory: Path, out: Path) -> tuple[str, dict[str, Any]]:
    """Write the page of `directory`; return its text and its data."""
    assert write_report(directory, out) == out.stat().st_size
    return read_page(out)


def read_page(page: Path) -> tuple[str, dict[str, Any]]:
    """The text of a page and its data."""
    text = page.read_text(encoding="utf-8")
    match = DATA.search(text)
    assert match is not None
    return text, json.loads(match[1])


def without_scripts(text: str) -> str:
    """The markup of a page."""
    return re.sub(r"<script.*?</script>", "", text, flags=re.S)
