"""What can be taken along from the page: pictures, tables and tokens, which say what they show."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt

from tests.figures.fake import HOSTILE
from tests.report.browsing import NEEDS_CHROMIUM, Open, text_of, to_compare

pytestmark = NEEDS_CHROMIUM


def test_pictures_and_tables_can_be_taken_along(opened: Open) -> None:
    page = opened("study")
    figure = page.locator("[data-picture=trigger_position]")
    figure.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('[data-picture=trigger_position] .plot').dataset.drawn")
    with page.expect_download() as svg:
        figure.locator("[data-format=svg]").click()
    assert svg.value.suggested_filename == "trigger_position.svg" and text_of(svg.value).startswith("<svg") and "KnowMem" in text_of(svg.value)
    with page.expect_download() as png:
        figure.locator("[data-format=png]").click()
    assert Path(png.value.path()).read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as numbers:
        figure.locator("[data-format=csv]").click()
    rows = list(csv.DictReader(io.StringIO(text_of(numbers.value))))
    assert len(rows) > 10 and {"view", "metric", "model", "x", "y"} <= set(rows[0])
    with page.expect_download() as table:
        page.locator("#overview [data-format=csv]").first.click()
    assert "verdict" in text_of(table.value).splitlines()[0]
    to_compare(page)
    with page.expect_download() as scores:
        page.locator("#compare [aria-label='scores of honest as CSV']").click()
    assert text_of(scores.value).splitlines()[0] == "score,clean,with the trigger,n,seeds"


def test_tokens_can_be_taken_along_as_a_picture(opened: Open) -> None:
    """With what they say as text, whatever it is."""
    page = opened("sinks")
    strip = page.locator("#atlas .strip")
    strip.scroll_into_view_if_needed()
    with page.expect_download() as svg:
        strip.locator("[data-format=svg]").click()
    root = ElementTree.fromstring(text_of(svg.value))
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(words) == 40 and HOSTILE[:20] in "".join(words)
    assert not [node for node in root.iter() if node.tag.rpartition("}")[2] not in ("svg", "rect", "text")]
    shades = [node for node in root.iter("{http://www.w3.org/2000/svg}rect") if "rgba" in node.get("fill")]
    assert len(shades) == 33, "all but the last seven"
    with page.expect_download() as png:
        strip.locator("[data-format=png]").click()
    picture = plt.imread(png.value.path(), format="png")
    assert picture.shape[1] == 2 * 760 and picture[..., :3].min() < 0.2, "there are letters on it"
    controls = page.evaluate("stripSvg([{ words: 'a\\u0000\\ud800b', shade: null, trigger: false }]).text")
    assert ElementTree.fromstring(controls)[1].text == "a��b"


def test_a_picture_that_is_taken_along_says_what_it_shows(opened: Open) -> None:
    page = opened("sinks")
    with page.expect_download() as svg:
        page.locator("#atlas figure").first.locator("[data-format=svg]").click()
    assert "attention received α at position 0, 3 layers by 4 heads" in "".join(ElementTree.fromstring(text_of(svg.value)).itertext())
