"""Atlases of any size, maps and strips of any text: sizes, labels, and no warning from matplotlib."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkscope.plots import sinks, style
from sinkscope.plots import token_heatmap as strip
from sinkscope.plots.style import (
    MISSING,
    MONO,
    PAGE,
    sanitize_glyphs,
    save_figure,
    show_whitespace,
    truncate,
    wrap_note,
)

HOSTILE = [
    "<s>",
    " $\\alpha$",
    "$",
    "\\$",
    " 😀",
    "\n",
    "",
    "\t",
    "\r",
    "\x00",
    "\u200d",
    "漢字",
    "e\u0301",
    "_x_",
    "%{}^",
    "=" * 200,
    "   ",
    "\ud83d",
]


pytestmark = pytest.mark.usefixtures("strict_plots")


def atlas_data(n_layers: int, n_heads: int) -> pd.DataFrame:
    values = np.random.default_rng(0).random((2, n_layers * n_heads))
    layers, heads = np.indices((n_layers, n_heads)).reshape(2, -1)
    return pd.DataFrame(
        {"layer": layers, "head": heads, "position": 0, "alpha": values[0], "sink_rate": values[1]}
    )


@pytest.mark.parametrize(("n_layers", "n_heads"), [(4, 4), (12, 12), (32, 32), (80, 64), (6, 48), (80, 8)])
def test_atlas_fits_a_page_and_its_labels_do_not_overlap(n_layers: int, n_heads: int) -> None:
    data = atlas_data(n_layers, n_heads)
    figure = sinks.draw_atlas(data, 0, "a model, n = 128 passages of ≤ 64 tokens")
    width, height = figure.get_size_inches()
    assert 3 < width <= PAGE
    assert 1.5 < height < 8
    figure.canvas.draw()
    left, right, _ = figure.axes
    np.testing.assert_array_equal(
        left.images[0].get_array(), data.pivot(index="layer", columns="head", values="alpha")
    )
    np.testing.assert_array_equal(
        right.images[0].get_array(), data.pivot(index="layer", columns="head", values="sink_rate")
    )
    assert len(left.texts) == (n_layers * n_heads if max(n_layers, n_heads) <= 12 else 0)
    for ticks, n in ((left.get_xticklabels(), n_heads), (left.get_yticklabels(), n_layers)):
        assert min(n, 4) <= len(ticks) <= 40
        boxes = [each.get_window_extent() for each in ticks]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    texts = [each.get_window_extent() for each in left.texts[:n_heads]]
    assert not any(one.overlaps(other) for one, other in pairwise(texts))


def test_any_text_becomes_a_map_and_a_strip(tmp_path: Path) -> None:
    labels, n = [show_whitespace(token) for token in HOSTILE], len(HOSTILE)
    pattern, alpha = np.tril(np.full((n, n), 0.25)), np.linspace(0.9, 0, n)
    alpha[-3:] = np.nan
    figure = sinks.draw_head_map(pattern, labels, "a $strange$ name 漢: layer 0, head 0")
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[1] == r"␣\$\alpha\$"
    assert max(map(len, shown)) <= 16
    save_figure(figure, sinks.head_map_table(pattern, labels), tmp_path, "map")
    save_figure(
        strip.draw_tokens(HOSTILE, alpha, "a $strange$ name 漢"),
        strip.tokens_table(HOSTILE, alpha),
        tmp_path,
        "strip",
    )
    for name in ("map", "strip"):
        assert {(tmp_path / f"{name}.{suffix}").stat().st_size > 500 for suffix in ("png", "pdf")} == {True}
    written = pd.read_csv(tmp_path / "strip.csv", keep_default_na=False)
    assert written["token"].tolist() == labels
    assert labels[4:7] == ["␣😀", "⏎", "∅"]


def test_a_map_in_bins_has_positions_and_a_blank_upper_part() -> None:
    figure = sinks.draw_head_map(np.full((3, 3), 0.5), ["x"] * 130, "a model", bin_size=50)
    axis = figure.axes[0]
    assert axis.get_xlabel() == "attended position"
    assert axis.get_xlim() == (-0.5, 129.5)
    np.testing.assert_array_equal(
        np.isnan(axis.images[0].get_array().filled(np.nan)), np.triu(np.ones((3, 3)), 1).astype(bool)
    )
    frame = sinks.head_map_table(np.full((3, 3), 0.5), ["x"] * 130, 50)
    assert frame["key"].tolist() == [0, 0, 50, 0, 50, 100]


def test_a_strip_of_a_long_text_is_a_page_and_says_how_much_it_shows() -> None:
    figure = strip.draw_tokens([" word"] * 4000, np.full(4000, 0.1), "a model")
    assert max(figure.get_size_inches()) < 10
    drawn = len(figure.axes[0].collections[0].get_paths())
    assert f"the first {drawn} of 4000 tokens" in figure.texts[0].get_text()
    assert strip.draw_tokens([], np.array([]), "nothing").axes


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_every_text_is_visible_and_drawable(text: str) -> None:
    label = show_whitespace(text)
    assert label
    assert label.isprintable()
    assert " " not in label
    assert len(truncate(label, 9)) <= 9
    assert sanitize_glyphs(label, MONO).replace(r"\$", "$") == "".join(
        c if sanitize_glyphs(c, MONO) != MISSING else MISSING for c in label
    )


def test_a_character_is_drawn_by_a_fallback_that_has_it(monkeypatch, strict_plots) -> None:
    only_serif = "\u2900"  # in DejaVu Serif and neither in Sans nor in Sans Mono
    assert sanitize_glyphs(only_serif, MONO) == MISSING
    monkeypatch.setattr(style, "FALLBACKS", ["DejaVu Serif"])
    monkeypatch.setattr(strip, "FALLBACKS", ["DejaVu Serif"])
    assert sanitize_glyphs(only_serif, MONO) == only_serif
    figure = strip.draw_tokens([only_serif], np.array([0.5]), "a model")
    figure.canvas.draw()


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    assert [style.count_columns(text) for text in ("ab", "水槽", "e\u0301", "के", "े", "")] == [
        2,
        4,
        1,
        2,
        2,
        0,
    ]


@pytest.mark.parametrize("name", ["/very/long/path" * 20, "a b " * 200, "a", "x" * 130 + " y"])
def test_notes_are_at_most_two_lines_and_keep_their_end(name: str) -> None:
    lines = wrap_note(f"{name}: n = 3", 3.0).split("\n")
    assert max(map(len, lines)) <= 66
    assert len(lines) <= 2
    assert lines[-1].endswith(": n = 3")


def test_a_long_name_of_a_model_does_not_squeeze_the_axes() -> None:
    profile = pd.DataFrame({"position": range(4), "alpha": 0.2, "uniform": 0.1, "model": "m" * 900})
    figure = sinks.draw_attention_received(profile, f"{'m' * 900}, n = 3 passages")
    figure.canvas.draw()
    assert figure.axes[0].get_position().height > 0.5


def test_several_models_are_drawn_as_differences_to_the_first() -> None:
    norms = pd.DataFrame(
        {"model": ["a", "a", "b", "b"], "position": [0, 1] * 2, "value_norm": [1.0, 2, 4, 2]}
    )
    first, difference = sinks.draw_value_norms(norms, "n = 3 passages").axes
    assert first.lines[0].get_ydata().tolist() == [1, 2]
    assert difference.lines[0].get_ydata().tolist() == [3, 0]
