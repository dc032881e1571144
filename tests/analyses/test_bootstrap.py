"""The crossed bootstrap against literal resampling, and whether its intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from bootstrap import Sample, bootstrap_interval, small_sample_correction
from scipy import stats


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first - second).mean(-1)


def mean(values: np.ndarray) -> np.ndarray:
    return values.mean(-1)


def test_effect_is_the_mean_over_seeds_of_means_over_the_items_that_count() -> None:
    first = np.array([[1.0, 2.0, np.nan], [4.0, np.nan, 8.0]])
    second = np.zeros((2, 3))
    result = bootstrap_interval([Sample(first, "a"), Sample(second, "a")], difference)
    assert result.value == pytest.approx((1.5 + 6.0) / 2)
    assert (result.seeds, result.items) == (2, 3)


def test_interval_equals_literal_resampling_of_seeds_and_items() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(1, 1, (4, 30)), rng.normal(0, 1, (4, 30))
    first[:, 5:8] = second[:, 5:8] = np.nan
    result = bootstrap_interval([Sample(first, "a"), Sample(second, "a")], difference, resamples=4000)
    drawn = []
    for _ in range(4000):
        seeds, items = rng.integers(0, 4, 4), rng.integers(0, 30, 30)
        drawn.append(np.mean([np.nanmean(first[s, items]) - np.nanmean(second[s, items]) for s in seeds]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    factor = small_sample_correction(4)
    assert result.low == pytest.approx(result.value + factor * (low - result.value), abs=0.08)
    assert result.high == pytest.approx(result.value + factor * (high - result.value), abs=0.08)


def test_pairing_cancels_the_difficulty_of_items() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, 200)
    first, second = difficulty + 1 + rng.normal(0, 0.1, (3, 200)), difficulty + rng.normal(0, 0.1, (3, 200))
    paired = bootstrap_interval([Sample(first, "a"), Sample(second, "a")], difference)
    unpaired = bootstrap_interval([Sample(first, "a"), Sample(second, "b")], difference)
    assert paired.high - paired.low < 0.2 < unpaired.high - unpaired.low


def test_small_sample_correction_turns_a_normal_interval_into_students() -> None:
    assert small_sample_correction(5) == pytest.approx(
        np.sqrt(5 / 4) * stats.t.ppf(0.975, 4) / stats.norm.ppf(0.975)
    )
    assert small_sample_correction(1) == 1.0
    assert small_sample_correction(1000) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("seeds", [3, 5])
def test_about_95_percent_of_intervals_cover_the_truth_where_seeds_differ(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    covered = 0
    for repeat in range(300):
        values = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 1, 40) + rng.normal(0, 1, (seeds, 40))
        result = bootstrap_interval([Sample(values, "a")], mean, resamples=400, seed=repeat)
        covered += result.low <= 0 <= result.high
    assert covered / 300 >= 0.92


def test_one_seed_gives_the_bootstrap_over_items() -> None:
    values = np.random.default_rng(1).normal(0, 1, (1, 100))
    result = bootstrap_interval([Sample(values, "a")], mean)
    half = 1.96 * values.std() / 10
    assert result.low == pytest.approx(values.mean() - half, abs=0.03)
    assert result.high == pytest.approx(values.mean() + half, abs=0.03)


def test_samples_of_different_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of seeds: 1, 2"):
        bootstrap_interval([Sample(np.ones((1, 3)), "a"), Sample(np.ones((2, 3)), "a")], difference)
    with pytest.raises(ValueError, match="different seeds"):
        bootstrap_interval(
            [Sample(np.ones((2, 3)), "a", (0, 1)), Sample(np.ones((2, 3)), "a", (3, 4))], difference
        )
    bootstrap_interval([Sample(np.ones((2, 3)), "a", (0, 1)), Sample(np.ones((2, 3)), "a")], difference)


def test_an_item_counts_only_where_it_counts_in_all_samples_of_the_same_items() -> None:
    first, second = np.array([[1.0, 100.0]]), np.array([[0.0, np.nan]])
    assert bootstrap_interval([Sample(first, "a"), Sample(second, "a")], difference).value == 1.0
    assert bootstrap_interval([Sample(first, "a"), Sample(second, "b")], difference).value == 50.5
