"""A browser for the page. Without playwright, tests that import this module are skipped."""

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


def scroll_to_end(page: Any) -> None:
    """Scroll through the page, so that all charts are drawn."""
    for index in range(page.locator(".plot").count()):
        page.locator(".plot").nth(index).scroll_into_view_if_needed()
        page.wait_for_function("i => document.querySelectorAll('.plot')[i].dataset.drawn", arg=index)


def cell_center(page: Any, layer: int, head: int) -> dict[str, float]:
    """The center of a cell of the atlas in its chart, in pixels."""
    return page.evaluate(
        "([layer, head]) => { const l = document.querySelector('#atlas .plot')._fullLayout;"
        " return { x: l.xaxis.l2p(head) + l._size.l, y: l.yaxis.l2p(layer) + l._size.t }; }",
        [layer, head],
    )


def scroll_to_comparison(page: Any) -> None:
    page.locator("#comparison .plot").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#comparison .plot')].every(plot => plot.dataset.drawn)"
    )


def read_download(download: Any) -> str:
    return Path(download.path()).read_text(encoding="utf-8")
