"""Encoded numbers, binned positions and averaged views, compared with plain numpy."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sinkscope.report.payload import MAX_BINS, MAX_VALUES, View, average_views, bin_means, encode_uint16


def decode(encoded: dict[str, Any]) -> np.ndarray:
    """As the page decodes it."""
    codes = np.frombuffer(base64.b64decode(encoded["data"]), dtype="<u2").astype(float)
    values = np.where(codes == 65535, np.nan, (codes / 65534) ** 2 * encoded["scale"])
    return values.reshape(encoded["shape"])


@given(arrays(np.float64, (2, 3, 5), elements=st.one_of(st.floats(0, 1e6), st.just(float("nan")))))
def test_encoded_numbers_are_recovered_within_the_stated_error(values: np.ndarray) -> None:
    decoded = decode(encode_uint16(values))
    maximum = np.nanmax(values) if np.isfinite(values).any() else 0.0
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(values))
    known = ~np.isnan(values)
    errors = np.abs(decoded - values)[known]
    assert (errors <= np.sqrt(values[known] * maximum) / 65534 + 2e-10 * maximum).all()


def test_negative_rounding_errors_become_zero() -> None:
    np.testing.assert_array_equal(decode(encode_uint16(np.array([-1e-8, 0.0]))), [0, 0])
    decoded = decode(encode_uint16(np.array([-1e-8, 0.25, 1.0])))
    np.testing.assert_allclose(decoded, [0, 0.25, 1], atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_bins_are_means_of_measured_values(size: int) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (2, 2, 10))
    values[0, 1, 6:] = np.nan
    means = bin_means(values, size)
    for layer, head in np.ndindex(2, 2):
        for index, start in enumerate(range(0, 10, size)):
            known = [value for value in values[layer, head, start : start + size] if not np.isnan(value)]
            expected = np.mean(known) if known else np.nan
            assert means[layer, head, index] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("heads", "length"), [((4, 4), 64), ((4, 4), 32768), ((32, 32), 8192), ((200, 128), 64)]
)
def test_long_passages_and_many_heads_are_binned_never_refused(heads: tuple[int, int], length: int) -> None:
    alpha = np.broadcast_to(np.arange(length) / length, (*heads, length))
    n = np.arange(length)[::-1]
    view = View({"alpha": alpha}, n, np.ones((1, length)), tokens=["ab"] * length, exact_positions=[0, 5])
    payload = view.payload()
    n_layers, n_heads, bins = payload["statistics"]["alpha"]["shape"]
    assert (n_layers, n_heads) == heads
    assert bins <= MAX_BINS
    assert n_layers * n_heads * bins <= MAX_VALUES
    assert bins == -(-length // payload["bin"]) == len(payload["tokens"])
    assert payload["n"][0] == [length - payload["bin"], length - 1]
    assert payload["tokenCount"] == length
    assert (payload["exact"] is not None) == (payload["bin"] > 1)
    if payload["exact"]:
        exact = decode(payload["exact"]["statistics"]["alpha"])[0, 0]
        np.testing.assert_allclose(exact, [0, 5 / length], atol=1e-5)
        assert payload["exact"]["n"] == [length - 1, length - 6]


def test_bins_without_exact_positions_offer_none() -> None:
    payload = View({"alpha": np.ones((1, 1, 600))}, np.ones(600, dtype=int), np.ones((1, 600))).payload()
    assert payload["bin"] > 1
    assert payload["exact"] is None


def test_maps_keep_their_lower_triangle() -> None:
    pattern = np.random.default_rng(1).uniform(0, 1, (2, 3, 4, 4))
    view = View({"alpha": np.ones((2, 3, 4))}, np.ones(4, dtype=int), np.ones((2, 4)), pattern)
    cells = decode(view.payload()["pattern"]["cells"])
    for query in range(4):
        for key in range(query + 1):
            index = query * (query + 1) // 2 + key
            np.testing.assert_allclose(cells[:, :, index], pattern[:, :, query, key], atol=2e-5)


def test_the_mean_of_seeds_is_over_runs() -> None:
    views = [
        View(
            {"alpha": np.full((1, 1, 3), value)},
            np.array(n),
            np.ones((1, len(n))),
            np.full((1, 1, 2, 2), value),
        )
        for value, n in ((1.0, [5, 5, 5]), (3.0, [6, 4, 2]))
    ]
    mean = average_views(views)
    assert mean.n.tolist() == [5, 4, 2]
    assert mean.n_runs == 2
    assert (mean.statistics["alpha"] == 2).all()
    assert mean.pattern is not None
    assert (mean.pattern == 2).all()
