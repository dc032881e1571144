"""The page of passages whose positions are binned, and tables with missing values, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sinkscope.report.page import Page
from sinkscope.report.pages.comparison import ModelPanel, add_comparison, add_views
from sinkscope.report.payload import View
from tests.report.browsing import NEEDS_CHROMIUM

pytestmark = NEEDS_CHROMIUM
LENGTH = 600


def make_view(value: float) -> View:
    alpha = np.full((2, 3, LENGTH), value)
    alpha[:, :, 40] = 0.5
    n = np.linspace(9, 1, LENGTH).astype(int)
    pattern = np.full((2, 3, 30, 30), value)
    uniform = np.ones((2, LENGTH)) / LENGTH
    return View({"alpha": alpha}, n, uniform, pattern, 20, ["ab "] * LENGTH, exact_positions=[40, 299])


def open_page(browser: Any, page: Page, path: Path) -> tuple[Any, list[str]]:
    """The rendered page in a tab, and the errors and messages in it."""
    path.write_text(page.render(), encoding="utf-8")
    tab, messages = browser.new_page(), []
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("console", lambda message: messages.append(message.text))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready]")
    return tab, messages


def test_a_comparison_of_long_passages_is_binned_and_works(browser: Any, tmp_path: Path) -> None:
    page = Page("long", [("what", "long passages")])
    views = {"clean": make_view(0.1), "triggered": make_view(0.3)}
    numbers = add_views(page, {"prefix": views})
    add_comparison(page, [ModelPanel("a model", "other", "a trigger", numbers)])
    page.add_table("tables", "values", "Some", pd.DataFrame({"value": [3.0, None, 10.0, 1.0, None]}))
    tab, messages = open_page(browser, page, tmp_path / "page.html")
    assert "a trigger" in tab.text_content("#comparison")
    rows = tab.locator("[data-table=values]")
    for expected in (["1", "3", "10", "–", "–"], ["10", "3", "1", "–", "–"]):
        rows.locator("th button").click()
        assert rows.locator("tbody td").all_text_contents() == expected
    fold = tab.locator("#atlas details summary").first
    fold.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#atlas details[open] table")
    assert fold.evaluate("element => element === document.activeElement"), "the fold keeps the focus"
    assert not messages
    tab.close()


def test_an_exact_position_has_its_own_number_of_passages(browser: Any, tmp_path: Path) -> None:
    """Not that of the bin it is in."""
    page = Page("long", [("what", "long passages")])
    view = make_view(0.1)
    page.atlas.append(("a model", page.add_view(view)))
    tab, messages = open_page(browser, page, tmp_path / "page.html")
    tab.select_option("#atlas-exact", label="299")
    note = "#atlas .body > p.note"
    assert f"over n = {view.n[299]} passages" in tab.text_content(note)
    tab.select_option("#atlas-exact", label="– (bins)")
    start = 299 // view.bin_size * view.bin_size
    in_bin = view.n[start : start + view.bin_size]
    count = str(in_bin.min()) if in_bin.min() == in_bin.max() else f"{in_bin.min()}–{in_bin.max()}"
    assert f"over n = {count} passages" in tab.text_content(note)
    assert not messages
    tab.close()
