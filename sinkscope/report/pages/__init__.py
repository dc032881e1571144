"""How the page of each kind of result is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sinkscope.report.page import Page
from sinkscope.report.pages import comparison, locate, runs, study

PAGES: dict[str, Callable[[Path, dict[str, Any]], Page]] = {
    "locate": locate.build_page,
    "compare": comparison.build_page,
    "unlearn": runs.build_unlearn_page,
    "evaluate": runs.build_evaluate_page,
    "audit": runs.build_audit_page,
    "study": study.build_page,
}
"""Kind of result -> its page, from the directory and the manifest of the results."""
