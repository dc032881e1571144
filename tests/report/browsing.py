"""A browser for the page, and how a test gets about in it. Where playwright is missing, what imports this is skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (sinkscope[dev])")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a chromium on the PATH (Debian: apt-get install chromium)"
)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
Open = Callable[..., Any]


def to_the_end(page: Any) -> None:
    """Scroll through the page, so that all charts are drawn."""
    for index in range(page.locator(".plot").count()):
        page.locator(".plot").nth(index).scroll_into_view_if_needed()
        page.wait_for_function("i => document.querySelectorAll('.plot')[i].dataset.drawn", arg=index)


def place_of(page: Any, layer: int, head: int) -> dict[str, float]:
    """Where a cell of the atlas is drawn in its chart."""
    return page.evaluate(
        "([layer, head]) => { const l = document.querySelector('#atlas .plot')._fullLayout;"
        " return { x: l.xaxis.l2p(head) + l._size.l, y: l.yaxis.l2p(layer) + l._size.t }; }",
        [layer, head],
    )


def to_compare(page: Any) -> None:
    page.locator("#compare .plot").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#compare .plot')].every(plot => plot.dataset.drawn)"
    )


def text_of(download: Any) -> str:
    return Path(download.path()).read_text(encoding="utf-8")
