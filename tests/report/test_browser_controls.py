"""Every control of the page does what it says: cells, keys, sliders, choices and tables."""

from __future__ import annotations

import pytest

from tests.report.browsing import NEEDS_CHROMIUM, Open, place_of, to_compare

pytestmark = NEEDS_CHROMIUM


def test_a_click_on_a_cell_shows_that_head(opened: Open) -> None:
    page = opened("sinks")
    title = page.locator("#atlas .plot").first
    title.click(position=place_of(page, 1, 3))
    assert page.input_value("#atlas-layer") == "1" and page.input_value("#atlas-head") == "3"
    assert "layer 1 head 3 is chosen" in title.get_attribute("aria-label")
    assert "layer 1, head 3" in page.text_content("#spoken")
    maps = page.locator("#atlas .plot").nth(1)
    maps.scroll_into_view_if_needed()
    shown = page.evaluate(
        "document.querySelectorAll('#atlas .plot')[1].data[0].z.map(row => row.map(v => v ?? 0).reduce((a, b) => a + b))"
    )
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
    assert (
        page.text_content("#atlas .body > p.note") != before
        and page.get_attribute("#atlas-position", "aria-valuetext") == "position 1"
    )


def test_the_slider_moves_map_strip_and_scores_together(opened: Open) -> None:
    page = opened("study")
    to_compare(page)
    assert [
        page.locator(".compare-model").nth(i).evaluate("e => e.selectedOptions[0].textContent.split(' ')[0]")
        for i in range(3)
    ] == ["target", "unlearned", "position"]
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
        assert maps["change"][query][key] == pytest.approx(
            maps["triggered"][query][key] - maps["clean"][query][key], abs=1e-6
        )
    assert maps["change"][2][7] is None
    page.select_option(".compare-model >> nth=0", label="unlearned")
    assert page.evaluate("document.querySelector('#compare .plot').data[0].z") != maps["change"]


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
    assert [
        int(text) for text in runs.locator(f"tbody tr td:nth-child({column})").all_text_contents()
    ] == sorted(seeds, reverse=True)
    runs.locator("tbody tr").first.locator("button").click()
    name = runs.locator("tbody tr").first.locator(f"td:nth-child({heads.index('run') + 1})").text_content()
    assert name in page.text_content("#opened") and page.locator("#opened tbody tr").count() > 2


def test_the_mouse_over_a_cell_tells_its_number(opened: Open) -> None:
    page = opened("sinks")
    page.locator("#atlas .plot").first.hover(position=place_of(page, 1, 2))
    page.wait_for_selector("#atlas .hoverlayer text")
    value = page.evaluate("document.querySelector('#atlas .plot').data[0].z[1][2]")
    assert f"layer 1, head 2: {value:.4f}" in page.locator("#atlas .hoverlayer").first.text_content()


def test_positions_of_long_passages_are_binned_and_the_strongest_shown_alone(opened: Open) -> None:
    page = opened("large")
    assert "at position 0," in page.text_content("#atlas .body > p.note"), "the strongest position by itself"
    page.select_option("#atlas-statistic", "sink_rate")
    assert "sink rate at position 0," in page.text_content("#atlas .body > p.note")
    page.select_option("#atlas-exact", label="– (bins)")
    assert page.get_attribute("#atlas-position", "aria-valuetext") == "positions 0–3"
    assert page.locator("#atlas .strip span").count() == 256


def test_an_opened_table_of_tokens_stays_open_and_follows(opened: Open) -> None:
    page = opened("study")
    to_compare(page)
    fold = page.locator("#compare .strip details").nth(1)
    fold.locator("summary").click()
    marked = []
    for _ in range(2):
        fold.locator("table").wait_for()
        marked.append([text for text in fold.locator("tbody tr").all_text_contents() if text.endswith("yes")])
        page.focus("#compare-place")
        page.keyboard.press("ArrowRight")
    assert len(marked[0]) == len(marked[1]) == 8 and marked[0] != marked[1], "the trigger has moved"
    strip = page.locator("#atlas .strip details")
    strip.locator("summary").click()
    before = strip.locator("table").element_handle()
    page.focus("#atlas-position")
    page.keyboard.press("ArrowRight")
    assert before.is_visible(), "tokens do not depend on the position"


def test_colors_mean_the_same_at_every_position_and_in_every_model(opened: Open) -> None:
    page = opened("study")
    scale = "[document.querySelector('#atlas .plot').data[0].zmin, document.querySelector('#atlas .plot').data[0].zmax]"
    for statistic in ("value_norm", "alpha"):
        page.select_option("#atlas-statistic", statistic)
        expected = page.evaluate(
            "s => Math.max(...report.atlas.flatMap(entry => [...unpack(views[entry.view].statistics[s])]))",
            statistic,
        )
        for number in range(3):
            page.select_option("#atlas-view", str(number))
            assert page.evaluate(scale) == pytest.approx([0, expected])


def test_all_rows_of_a_long_table_are_shown_and_hidden_again(opened: Open) -> None:
    page = opened("study")
    scores = page.locator("[data-table=scores]")
    more = page.locator("#tables .tools").first.locator("button", has_text="show")
    assert scores.locator("tbody tr").count() == 100
    more.focus()
    page.keyboard.press("Enter")
    assert scores.locator("tbody tr").count() > 100
    assert more.evaluate("button => button === document.activeElement") and more.text_content() == "show 100"
    page.keyboard.press("Enter")
    assert scores.locator("tbody tr").count() == 100


def test_an_exact_position_says_how_many_passages_reach_it(opened: Open) -> None:
    """Not how many reach the bin that it lies in."""
    page = opened("large")
    page.evaluate("views[0].n = views[0].n.map(() => [1, 9])")
    page.select_option("#atlas-exact", index=2)
    assert "over n = 7 passages" in page.text_content("#atlas .body > p.note")
    page.select_option("#atlas-exact", label="– (bins)")
    assert "over n = 1–9 passages" in page.text_content("#atlas .body > p.note")


def test_a_change_of_attention_is_called_so(opened: Open) -> None:
    page = opened("study")
    to_compare(page)
    figure = page.locator("#compare figure").first
    for show, what in (("change", "change of attention"), ("triggered", "attention")):
        page.select_option("#compare-show", show)
        assert page.evaluate("document.querySelector('#compare .plot').data[0].colorbar.title.text") == what
        if show == "change":
            figure.locator("summary").click()
        assert figure.locator("th").all_text_contents() == ["query", "key", what]
