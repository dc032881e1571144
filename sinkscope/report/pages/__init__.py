"""One module per kind of result, each with `build_page(directory, manifest)`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sinkscope.report.page import Page
from sinkscope.report.pages import audit, compare, evaluate, locate, study, unlearn

PAGES: dict[str, Callable[[Path, dict[str, Any]], Page]] = {
    "locate": locate.build_page,
    "compare": compare.build_page,
    "unlearn": unlearn.build_page,
    "evaluate": evaluate.build_page,
    "audit": audit.build_page,
    "study": study.build_page,
}
"""Kind of result -> how its page is built."""
