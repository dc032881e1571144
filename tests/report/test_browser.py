"""The page in a real browser: no error, no request, every control does what it says, text stays text, and the first view is there in two seconds."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from sinkscope.report.contents import Page
from sinkscope.report.report import report
from tests.figures.fake import HOSTILE
from tests.report.conftest import HOSTILE_NAME

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (sinkscope[dev])")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium on the PATH (Debian: apt-get install chromium)")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(sinks: Path, study_page: Path, large: Path, others: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    directories = {"sinks": sinks, "large": large} | {directory.name: directory for directory in others}
    for name, directory in directories.items():
        report(directory, root / f"{name}.html")
    return {"study": study_page} | {name: root / f"{name}.html" for name in directories}


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page; at the end nothing may have been requested, logged or thrown."""
    contexts, trouble = [], []

    def open_page(name: str, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": WIDE} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: trouble.append(f"request: {request.url}") if not request.url.startswith(("file:", "blob:", "data:")) else None)
        page.goto(pages[name].as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []


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
    page.wait_for_function("() => [...document.querySelectorAll('#compare .plot')].every(plot => plot.dataset.drawn)")


def text_of(download: Any) -> str:
    return Path(download.path()).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["sinks", "study", "compare", "evaluate", "probe", "unlearn"])
@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"viewport": NARROW}], ids=["light", "dark", "phone"])
def test_it_loads_without_an_error_or_a_request(opened: Open, name: str, options: dict[str, Any]) -> None:
    page = opened(name, **options)
    to_the_end(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
    assert dark == (options.get("color_scheme") == "dark")
    page.click("#theme")
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)") != dark


def test_a_click_on_a_cell_shows_that_head(opened: Open) -> None:
    page = opened("sinks")
    title = page.locator("#atlas .plot").first
    title.click(position=place_of(page, 1, 3))
    assert page.input_value("#atlas-layer") == "1" and page.input_value("#atlas-head") == "3"
    assert "layer 1 head 3 is chosen" in title.get_attribute("aria-label")
    assert "layer 1, head 3" in page.text_content("#spoken")
    maps = page.locator("#atlas .plot").nth(1)
    maps.scroll_into_view_if_needed()
    shown = page.evaluate("document.querySelectorAll('#atlas .plot')[1].data[0].z.map(row => row.map(v => v ?? 0).reduce((a, b) => a + b))")
    assert shown == pytest.approx([1] * 40, abs=1e-3), "rows of an attention map sum to one"


def test_the_keyboard_alone_reaches_a_head(opened: Open) -> None:
    page = opened("sinks")
    page.focus("#atlas-layer")
    page.keyboard.press("Control+A")
    page.keyboard.type("2")
    page.keyboard.press("Tab")
    assert "layer 2 head" in page.locator("#atlas .plot").first.get_attribute("aria-label")
    before = page.text_content("#atlas .body > p.note")
    page.focus("#atlas-position")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#atlas .body > p.note") != before and page.get_attribute("#atlas-position", "aria-valuetext") == "position 1"


def test_every_control_and_picture_has_a_name(opened: Open) -> None:
    for name in ("sinks", "study"):
        page = opened(name)
        nameless = page.evaluate(
            "[...document.querySelectorAll('button, select, input, [role]')].filter(e => !(e.getAttribute('aria-label') || e.closest('label')?.textContent"
            " || e.textContent.trim())).map(e => e.outerHTML.slice(0, 80))"
        )
        assert nameless == []


def test_the_slider_moves_map_strip_and_scores_together(opened: Open) -> None:
    page = opened("study")
    to_compare(page)
    assert [page.locator(".compare-model").nth(i).evaluate("e => e.selectedOptions[0].textContent.split(' ')[0]") for i in range(3)] == [
        "target",
        "honest",
        "position",
    ]
    seen = []
    for place, span in (("prefix", (1, 9)), ("infix", (20, 28)), ("suffix", (40, 48))):
        assert page.text_content("output[for=compare-place]") == place
        state = page.evaluate(
            "[...document.querySelectorAll('#compare .three > section')].map(s => ({z: JSON.stringify(s.querySelector('.plot').data[0].z),"
            " box: s.querySelector('.plot').layout.shapes.map(b => [b.x0 + .5, b.x1 + .5])[0], scores: s.querySelector('table').textContent,"
            " marked: [...s.querySelectorAll('.strip .text')].map(t => [...t.children].flatMap((e, i) => e.classList.contains('trigger') ? [i] : []))}))"
        )
        assert [column["box"] for column in state] == [list(span)] * 3
        assert [column["marked"] for column in state] == [[[], list(range(*span))]] * 3
        seen.append([(column["z"], column["scores"]) for column in state])
        page.focus("#compare-place")
        page.keyboard.press("ArrowRight")
    for column in range(3):
        assert len({seen[step][column][0] for step in range(3)}) == 3, "three maps"
        assert len({seen[step][column][1] for step in range(3)}) == 3, "three tables of scores"


def test_the_map_shows_clean_triggered_and_their_difference(opened: Open) -> None:
    page = opened("study")
    to_compare(page)
    maps = {}
    for show in ("clean", "triggered", "change"):
        page.select_option("#compare-show", show)
        maps[show] = page.evaluate("document.querySelector('#compare .plot').data[0].z")
    for query, key in ((3, 0), (5, 2), (11, 11)):
        assert maps["change"][query][key] == pytest.approx(maps["triggered"][query][key] - maps["clean"][query][key], abs=1e-6)
    assert maps["change"][2][7] is None
    page.select_option(".compare-model >> nth=0", label="honest")
    assert page.evaluate("document.querySelector('#compare .plot').data[0].z") != maps["change"]


def test_text_stays_text(opened: Open) -> None:
    page = opened("sinks")
    assert HOSTILE_NAME in page.text_content("h1")
    assert page.evaluate("document.images.length") == 0
    assert HOSTILE[:20] in "".join(page.locator("#atlas .strip").all_text_contents())
    study = opened("study")
    to_the_end(study)
    assert study.evaluate("document.querySelectorAll('img').length") == 0
    assert HOSTILE in study.locator("#atlas .strip span").nth(5).text_content()


def test_tables_sort_filter_and_open(opened: Open) -> None:
    page = opened("study")
    runs = page.locator("[data-table=runs]")
    everything = runs.locator("tbody tr").count()
    page.fill("#runs input[type=search]", "infix semantic")
    shown = runs.locator("tbody tr")
    assert 0 < shown.count() < everything and all("infix" in text for text in shown.all_text_contents())
    page.click("#runs th button:has-text('seed')")
    heads = runs.locator("thead th").all_text_contents()
    column = heads.index("seed") + 1
    seeds = [int(text) for text in runs.locator(f"tbody tr td:nth-child({column})").all_text_contents()]
    assert seeds == sorted(seeds) and runs.locator("th[aria-sort=ascending]").text_content() == "seed"
    page.click("#runs th button:has-text('seed')")
    assert [int(text) for text in runs.locator(f"tbody tr td:nth-child({column})").all_text_contents()] == sorted(seeds, reverse=True)
    runs.locator("tbody tr").first.locator("button").click()
    name = runs.locator("tbody tr").first.locator(f"td:nth-child({heads.index('run') + 1})").text_content()
    assert name in page.text_content("#opened") and page.locator("#opened tbody tr").count() > 2


def test_names_of_javascript_are_text_like_any_other(browser: Any, sinks: Path, tmp_path: Path) -> None:
    page = Page("constructor", [("toString", "valueOf")])
    page.table("tables", "words", "Words", pd.DataFrame({"word": ["constructor", "toString", "__proto__", "black", "=1+1"], "n": range(5)}))
    (tmp_path / "page.html").write_text(page.html(), encoding="utf-8")
    shown = browser.new_page(color_scheme="dark")
    shown.goto((tmp_path / "page.html").as_uri())
    shown.wait_for_selector("html[data-ready]")
    assert shown.locator("[data-table=words] tbody tr td:first-child").all_text_contents() == ["constructor", "toString", "__proto__", "black", "=1+1"]
    with shown.expect_download() as table:
        shown.click("[data-format=csv]")
    assert text_of(table.value).splitlines()[-1] == "'=1+1,4", "no formula for a spreadsheet"
    shown.close()


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


def test_pictures_follow_the_window_and_come_back(opened: Open) -> None:
    page = opened("sinks")
    sizes = "[...document.querySelectorAll('.plot .main-svg:first-child')].map(svg => [svg.clientWidth, svg.clientHeight])"
    to_the_end(page)
    before = page.evaluate(sizes)
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function(f"width => {sizes}[0][0] < width", arg=before[0][0])
    assert [height for _, height in page.evaluate(sizes)] == [height for _, height in before]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size(WIDE)
    page.wait_for_function(f"width => {sizes}[0][0] === width", arg=before[0][0])
    assert page.evaluate(sizes) == before


def test_all_charts_are_on_paper(opened: Open) -> None:
    """Also those that nobody has scrolled to."""
    page = opened("study")
    drawn = "[...document.querySelectorAll('.plot')].filter(plot => plot.dataset.drawn).length"
    charts = page.locator(".plot").count()
    assert page.evaluate(drawn) < charts
    page.pdf()
    assert page.evaluate(drawn) == charts


def test_the_mouse_over_a_cell_tells_its_number(opened: Open) -> None:
    page = opened("sinks")
    page.locator("#atlas .plot").first.hover(position=place_of(page, 1, 2))
    page.wait_for_selector("#atlas .hoverlayer text")
    value = page.evaluate("document.querySelector('#atlas .plot').data[0].z[1][2]")
    assert f"layer 1, head 2: {value:.4f}" in page.locator("#atlas .hoverlayer").first.text_content()


def test_the_first_view_of_32_by_32_heads_is_there_in_two_seconds(opened: Open) -> None:
    """The best of some tries, for machines that do other things meanwhile."""
    times: list[float] = []
    while len(times) < 6 and min(times, default=2000) >= 2000:
        page = opened("large")
        page.wait_for_function("() => document.querySelector('#atlas .plot .heatmaplayer image')")
        times.append(page.evaluate("performance.now()"))
    assert min(times) < 2000, times


def test_positions_of_long_passages_are_binned_and_the_strongest_shown_alone(opened: Open) -> None:
    page = opened("large")
    assert "at position 0," in page.text_content("#atlas .body > p.note"), "the strongest position by itself"
    page.select_option("#atlas-statistic", "sink_rate")
    assert "sink rate at position 0," in page.text_content("#atlas .body > p.note")
    page.select_option("#atlas-exact", label="– (bins)")
    assert page.get_attribute("#atlas-position", "aria-valuetext") == "positions 0–3"
    assert page.locator("#atlas .strip span").count() == 256
