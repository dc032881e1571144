"""The page of passages so long that positions are binned, and tables in which values are missing, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sinkscope.report.contents import Page
from sinkscope.report.shown import FIRST, SECOND, Shown, side_by_side
from sinkscope.report.views import View
from tests.report.browsing import NEEDS_CHROMIUM

pytestmark = NEEDS_CHROMIUM
LENGTH = 600


def view(value: float) -> View:
    alpha = np.full((2, 3, LENGTH), value)
    alpha[:, :, 40] = 0.5
    return View(
        {"alpha": alpha},
        np.full(LENGTH, 4),
        np.ones((2, LENGTH)) / LENGTH,
        np.full((2, 3, 30, 30), value),
        20,
        ["ab "] * LENGTH,
    )


def test_a_comparison_of_long_passages_is_binned_and_works(browser: Any, tmp_path: Path) -> None:
    page = Page("long", [("what", "long passages")])
    side_by_side(
        page, [Shown("a model", "other", "a trigger", {"prefix": {FIRST: view(0.1), SECOND: view(0.3)}})]
    )
    page.table("tables", "values", "Some", pd.DataFrame({"value": [3.0, None, 10.0, 1.0, None]}))
    (tmp_path / "page.html").write_text(page.html(), encoding="utf-8")
    shown, trouble = browser.new_page(), []
    shown.on("pageerror", lambda error: trouble.append(str(error)))
    shown.on("console", lambda message: trouble.append(message.text))
    shown.goto((tmp_path / "page.html").as_uri())
    shown.wait_for_selector("html[data-ready]")
    assert "over n = 4 passages" in shown.text_content("#atlas .note")
    assert shown.locator("#atlas-exact").is_hidden()
    assert "a trigger" in shown.text_content("#compare")
    rows = shown.locator("[data-table=values]")
    for expected in (["1", "3", "10", "–", "–"], ["10", "3", "1", "–", "–"]):
        rows.locator("th button").click()
        assert rows.locator("tbody td").all_text_contents() == expected
    fold = shown.locator("#atlas details summary").first
    fold.focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#atlas details[open] table")
    assert fold.evaluate("element => element === document.activeElement"), "the fold keeps the focus"
    assert not trouble
    shown.close()
