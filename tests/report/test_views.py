"""Packed numbers, bins of positions and means of views, against plain numpy."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sinkscope.report.views import BINS, CELLS, View, binned, mean_of, packed


def unpack(packed_values: dict) -> np.ndarray:
    """As the page does it."""
    whole = np.frombuffer(base64.b64decode(packed_values["data"]), dtype="<u2").astype(float)
    return np.where(whole == 65535, np.nan, (whole / 65534) ** 2 * packed_values["scale"]).reshape(
        packed_values["shape"]
    )


@given(arrays(np.float64, (2, 3, 5), elements=st.one_of(st.floats(0, 1e6), st.just(float("nan")))))
def test_packed_numbers_come_back_within_the_stated_error(values: np.ndarray) -> None:
    back = unpack(packed(values))
    most = np.nanmax(values) if np.isfinite(values).any() else 0.0
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    known = ~np.isnan(values)
    assert (np.abs(back - values)[known] <= np.sqrt(values[known] * most) / 65534 + 2e-10 * most).all()


def test_what_rounding_left_below_zero_is_zero() -> None:
    np.testing.assert_array_equal(unpack(packed(np.array([-1e-8, 0.0]))), [0, 0])
    np.testing.assert_allclose(unpack(packed(np.array([-1e-8, 0.25, 1.0]))), [0, 0.25, 1], atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_bins_are_means_of_what_was_measured(size: int) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (2, 2, 10))
    values[0, 1, 6:] = np.nan
    found = binned(values, size)
    for layer, head in np.ndindex(2, 2):
        for number, start in enumerate(range(0, 10, size)):
            here = [value for value in values[layer, head, start : start + size] if not np.isnan(value)]
            expected = np.mean(here) if here else np.nan
            assert found[layer, head, number] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("heads", "length"), [((4, 4), 64), ((4, 4), 32768), ((32, 32), 8192), ((200, 128), 64)]
)
def test_long_passages_and_many_heads_are_binned_never_refused(heads: tuple[int, int], length: int) -> None:
    alpha = np.broadcast_to(np.arange(length) / length, (*heads, length))
    shown = View(
        {"alpha": alpha}, np.arange(length)[::-1], np.ones((1, length)), tokens=["ab"] * length, exact=[0, 5]
    ).payload()
    layers, width, bins = shown["statistics"]["alpha"]["shape"]
    assert (layers, width) == heads and bins <= BINS and layers * width * bins <= CELLS
    assert bins == -(-length // shown["bin"]) == len(shown["tokens"])
    assert shown["n"][0] == [length - shown["bin"], length - 1] and shown["text"] == length
    assert ("exact" in shown) == (shown["bin"] > 1)
    if "exact" in shown:
        np.testing.assert_allclose(
            unpack(shown["exact"]["statistics"]["alpha"])[0, 0], [0, 5 / length], atol=1e-5
        )
        assert shown["exact"]["n"] == [length - 1, length - 6]


def test_bins_without_chosen_positions_offer_none() -> None:
    shown = View({"alpha": np.ones((1, 1, 600))}, np.ones(600, dtype=int), np.ones((1, 600))).payload()
    assert shown["bin"] > 1 and "exact" not in shown


def test_maps_keep_their_lower_triangle() -> None:
    pattern = np.random.default_rng(1).uniform(0, 1, (2, 3, 4, 4))
    shown = View({"alpha": np.ones((2, 3, 4))}, np.ones(4, dtype=int), np.ones((2, 4)), pattern).payload()[
        "pattern"
    ]
    found = unpack(shown["cells"])
    for query in range(4):
        for key in range(query + 1):
            np.testing.assert_allclose(
                found[:, :, query * (query + 1) // 2 + key], pattern[:, :, query, key], atol=2e-5
            )


def test_the_mean_of_seeds_is_over_runs() -> None:
    cases = ((1.0, [5, 5, 5]), (3.0, [6, 4, 2]))
    views = [
        View(
            {"alpha": np.full((1, 1, 3), value)},
            np.array(n),
            np.ones((1, len(n))),
            np.full((1, 1, 2, 2), value),
        )
        for value, n in cases
    ]
    both = mean_of(views)
    assert (
        both.n.tolist() == [5, 4, 2]
        and both.runs == 2
        and (both.statistics["alpha"] == 2).all()
        and both.pattern is not None
        and (both.pattern == 2).all()
    )
