"""Controls of the page: cells, keys, sliders, selections and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.report.browsing import NEEDS_CHROMIUM, Open, cell_center, scroll_to_comparison
from tests.report.pages import read_page
from tests.report.test_payload import decode

pytestmark = NEEDS_CHROMIUM


def test_a_click_on_a_cell_shows_that_head(opened: Open) -> None:
    page = opened("sinks")
    title = page.locator("#atlas .plot").first
    title.click(position=cell_center(page, 1, 3))
    assert page.input_value("#atlas-layer") == "1" and page.input_value("#atlas-head") == "3"
    assert "layer 1 head 3 is selected" in title.get_attribute("aria-label")
    assert "layer 1, head 3" in page.text_content("#announcements")
    maps = page.locator("#atlas .plot").nth(1)
    maps.scroll_into_view_if_needed()
    rows = page.evaluate("document.querySelectorAll('#atlas .plot')[1].data[0].z")
    sums = [sum(value or 0 for value in row) for row in rows]
    assert sums == pytest.approx([1] * 40, abs=1e-3), "rows of an attention map sum to one"


def test_the_keyboard_reaches_a_head(opened: Open) -> None:
    page = opened("sinks")
    page.focus("#atlas-layer")
    page.keyboard.press("Control+A")
    page.keyboard.type("2")
    page.keyboard.press("Tab")
    assert "layer 2 head" in page.locator("#atlas .plot").first.get_attribute("aria-label")
    before = page.text_content("#atlas .body > p.note")
    page.focus("#atlas-position")
    page.keyboard.press("ArrowRight")
    assert (
        page.text_content("#atlas .body > p.note") != before
        and page.get_attribute("#atlas-position", "aria-valuetext") == "position 1"
    )


COLUMN_STATES = """[...document.querySelectorAll('#comparison .three > section')].map(section => ({
  map: JSON.stringify(section.querySelector('.plot').data[0].z),
  box: section.querySelector('.plot').layout.shapes.map(shape => [shape.x0 + .5, shape.x1 + .5])[0],
  scores: section.querySelector('table').textContent,
  marked: [...section.querySelectorAll('.strip .text')].map(text =>
    [...text.children].flatMap((token, i) => token.classList.contains('trigger') ? [i] : [])),
}))"""


def test_the_slider_moves_map_tokens_and_scores_together(opened: Open) -> None:
    page = opened("study")
    scroll_to_comparison(page)
    models = page.locator(".compare-model").evaluate_all(
        "all => all.map(e => e.selectedOptions[0].textContent)"
    )
    assert [model.split(" ")[0] for model in models] == ["target", "unlearned", "position"]
    steps = []
    for placement, span in (("prefix", (1, 9)), ("infix", (20, 28)), ("suffix", (40, 48))):
        assert page.text_content("output[for=compare-placement]") == placement
        columns = page.evaluate(COLUMN_STATES)
        assert [column["box"] for column in columns] == [list(span)] * 3
        assert [column["marked"] for column in columns] == [[[], list(range(*span))]] * 3
        steps.append(columns)
        page.focus("#compare-placement")
        page.keyboard.press("ArrowRight")
    for index in range(3):
        for name in ("map", "scores"):
            assert len({columns[index][name] for columns in steps}) == 3, f"three different {name}"


def test_the_map_shows_clean_triggered_and_their_difference(opened: Open) -> None:
    page = opened("study")
    scroll_to_comparison(page)
    maps = {}
    for show in ("clean", "triggered", "change"):
        page.select_option("#compare-quantity", show)
        maps[show] = page.evaluate("document.querySelector('#comparison .plot').data[0].z")
    for query, key in ((3, 0), (5, 2), (11, 11)):
        assert maps["change"][query][key] == pytest.approx(
            maps["triggered"][query][key] - maps["clean"][query][key], abs=1e-6
        )
    assert maps["change"][2][7] is None
    page.select_option(".compare-model >> nth=0", label="unlearned")
    assert page.evaluate("document.querySelector('#comparison .plot').data[0].z") != maps["change"]


def test_tables_sort_filter_and_open(opened: Open) -> None:
    page = opened("study")
    runs = page.locator("[data-table=runs]")
    everything = runs.locator("tbody tr").count()
    page.fill("#runs input[type=search]", "infix semantic")
    rows = runs.locator("tbody tr")
    assert 0 < rows.count() < everything
    assert all("infix" in text for text in rows.all_text_contents())
    page.click("#runs th button:has-text('seed')")
    heads = runs.locator("thead th").all_text_contents()
    column = heads.index("seed") + 1
    seeds = [int(text) for text in runs.locator(f"tbody tr td:nth-child({column})").all_text_contents()]
    assert seeds == sorted(seeds) and runs.locator("th[aria-sort=ascending]").text_content() == "seed"
    page.click("#runs th button:has-text('seed')")
    assert [
        int(text) for text in runs.locator(f"tbody tr td:nth-child({column})").all_text_contents()
    ] == sorted(seeds, reverse=True)
    runs.locator("tbody tr").first.locator("button").click()
    name = runs.locator("tbody tr").first.locator(f"td:nth-child({heads.index('run') + 1})").text_content()
    assert name in page.text_content("#run-details") and page.locator("#run-details tbody tr").count() > 2


def test_the_mouse_over_a_cell_displays_its_value(opened: Open) -> None:
    page = opened("sinks")
    page.locator("#atlas .plot").first.hover(position=cell_center(page, 1, 2))
    page.wait_for_selector("#atlas .hoverlayer text")
    value = page.evaluate("document.querySelector('#atlas .plot').data[0].z[1][2]")
    assert f"layer 1, head 2: {value:.4f}" in page.locator("#atlas .hoverlayer").first.text_content()


def test_positions_of_long_passages_are_binned_and_the_strongest_listed(opened: Open) -> None:
    page = opened("large")
    assert "at position 0," in page.text_content("#atlas .body > p.note"), "the strongest position"
    page.select_option("#atlas-statistic", "sink_rate")
    assert "sink rate at position 0," in page.text_content("#atlas .body > p.note")
    page.select_option("#atlas-exact", label="– (bins)")
    assert page.get_attribute("#atlas-position", "aria-valuetext") == "positions 0–3"
    assert page.locator("#atlas .strip span").count() == 256


def test_an_opened_table_of_tokens_stays_open_and_follows(opened: Open) -> None:
    page = opened("study")
    scroll_to_comparison(page)
    fold = page.locator("#comparison .strip details").nth(1)
    fold.locator("summary").click()
    marked = []
    for _ in range(2):
        fold.locator("table").wait_for()
        marked.append([text for text in fold.locator("tbody tr").all_text_contents() if text.endswith("yes")])
        page.focus("#compare-placement")
        page.keyboard.press("ArrowRight")
    assert len(marked[0]) == len(marked[1]) == 8 and marked[0] != marked[1], "the trigger has moved"
    strip = page.locator("#atlas .strip details")
    strip.locator("summary").click()
    before = strip.locator("table").element_handle()
    page.focus("#atlas-position")
    page.keyboard.press("ArrowRight")
    assert before.is_visible(), "tokens do not depend on the position"


def test_colors_mean_the_same_at_every_position_and_in_every_model(
    opened: Open, pages: dict[str, Path]
) -> None:
    page = opened("study")
    _, data = read_page(pages["study"])
    scale = "(({ zmin, zmax }) => [zmin, zmax])(document.querySelector('#atlas .plot').data[0])"
    for statistic, greatest in (("value_norm", None), ("alpha", 1)):  # α is a share
        page.select_option("#atlas-statistic", statistic)
        views = [data["views"][entry["view"]] for entry in data["atlas"]]
        expected = greatest or max(np.nanmax(decode(view["statistics"][statistic])) for view in views)
        for number in range(3):
            page.select_option("#atlas-view", str(number))
            assert page.evaluate(scale) == pytest.approx([0, expected])


def test_all_rows_of_a_long_table_can_be_displayed_and_hidden(opened: Open) -> None:
    page = opened("study")
    scores = page.locator("[data-table=scores]")
    more = page.locator(".tools:has(+ [data-table=scores]) button", has_text="show")
    assert scores.locator("tbody tr").count() == 100
    more.focus()
    page.keyboard.press("Enter")
    assert scores.locator("tbody tr").count() > 100
    assert more.evaluate("button => button === document.activeElement") and more.text_content() == "show 100"
    page.keyboard.press("Enter")
    assert scores.locator("tbody tr").count() == 100


def test_a_difference_is_labeled_as_change_of_attention(opened: Open) -> None:
    page = opened("study")
    scroll_to_comparison(page)
    figure = page.locator("#comparison figure").first
    for show, what in (("change", "change of attention"), ("triggered", "attention")):
        page.select_option("#compare-quantity", show)
        assert (
            page.evaluate("document.querySelector('#comparison .plot').data[0].colorbar.title.text") == what
        )
        if show == "change":
            figure.locator("summary").click()
        assert figure.locator("th").all_text_contents() == ["query", "key", what]
