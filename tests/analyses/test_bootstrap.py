"""The crossed bootstrap against literal resampling, and whether its intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from bootstrap import Interval, Sample, bootstrap_interval, measure_targets, small_sample_correction
from scipy import stats


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first - second).mean(-1)


def mean(values: np.ndarray) -> np.ndarray:
    return values.mean(-1)


def sample(values: np.ndarray, items: str = "a") -> Sample:
    """A sample of one target: seed × item."""
    return Sample(values[None], items, tuple(range(len(values))))


def test_effect_is_the_mean_over_seeds_of_means_over_the_items_that_count() -> None:
    first = np.array([[1.0, 2.0, np.nan], [4.0, np.nan, 8.0]])
    second = np.zeros((2, 3))
    result = bootstrap_interval([sample(first), sample(second)], difference)
    assert result.value == pytest.approx((1.5 + 6.0) / 2)
    assert (result.targets, result.seeds, result.items) == (1, 2, 2.0)  # 2 of 3 items count for each seed


def test_items_are_those_that_count_in_the_smallest_sample() -> None:
    full, half = np.ones((2, 10)), np.ones((2, 10))
    half[0, :4] = np.nan
    assert bootstrap_interval([sample(full), sample(half, "b")], difference).items == 8.0


def test_interval_equals_literal_resampling_of_targets_seeds_and_items() -> None:
    rng = np.random.default_rng(2)
    n_targets, n_seeds, n_items = 5, 3, 20
    first, second = (
        rng.normal(level, 1, (n_targets, 1, 1)) + rng.normal(0, 1, (n_targets, n_seeds, n_items))
        for level in (1, 0)
    )
    first[:, 1, 3:6] = np.nan
    result = bootstrap_interval([Sample(first, "a"), Sample(second, "a")], difference, resamples=4000)
    second = np.where(np.isnan(first), np.nan, second)
    assert result.value == pytest.approx((np.nanmean(first, -1) - np.nanmean(second, -1)).mean())
    drawn = []
    for _ in range(4000):
        targets, seeds, items = (rng.integers(0, n, n) for n in first.shape)
        runs = [(t, s) for t in targets for s in seeds]
        drawn.append(
            np.mean([np.nanmean(first[t, s, items]) - np.nanmean(second[t, s, items]) for t, s in runs])
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    factor = small_sample_correction(n_targets)
    assert result.low == pytest.approx(result.value + factor * (low - result.value), abs=0.12)
    assert result.high == pytest.approx(result.value + factor * (high - result.value), abs=0.12)
    assert result.standard_error == pytest.approx(np.std(drawn) * np.sqrt(5 / 4), rel=0.05)
    assert (result.targets, result.seeds, result.units) == (5, 3, 5)


def test_effects_of_targets_are_averaged() -> None:
    values = np.arange(12.0).reshape(2, 2, 3)
    samples = [Sample(values, "a"), Sample(np.zeros((2, 1, 3)), "a")]  # the second has no seeds

    def largest(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first - second).max(-1)

    assert measure_targets(samples, largest).tolist() == [4.0, 10.0]
    assert bootstrap_interval(samples, largest, resamples=10).value == 7.0


def test_p_is_that_of_students_t() -> None:
    result = Interval(7.0, 3.0, 11.0, 2.0, targets=8, seeds=3, items=100)
    assert result.p_above(5) == pytest.approx(stats.t.sf(1.0, 7)) == pytest.approx(1 - result.p_below(5))
    assert result.p_above(5) == pytest.approx(0.1753, abs=1e-4)  # of a table of t with 7 degrees of freedom
    assert Interval(7.0, 3.0, 11.0, 2.0, 1, 3, 100).p_above(5) == pytest.approx(stats.t.sf(1.0, 2))
    assert np.isnan(Interval(7.0, 3.0, 11.0, 2.0, 1, 1, 100).p_above(5))
    constant = Interval(5.0, 5.0, 5.0, 0.0, 8, 3, 100)
    assert [constant.p_above(margin) for margin in (4, 5, 6)] == [0.0, 0.5, 1.0]


def test_p_is_that_of_a_t_test_over_targets_where_only_targets_differ() -> None:
    of_targets = np.random.default_rng(4).normal(6, 3, 8)
    values = np.broadcast_to(of_targets[:, None, None], (8, 3, 10))
    result = bootstrap_interval([Sample(values, "a")], mean, resamples=20_000)
    expected = stats.ttest_1samp(of_targets, 5, alternative="greater")
    assert result.p_above(5) == pytest.approx(expected.pvalue, rel=0.05)
    assert (result.low, result.high) == pytest.approx(expected_interval(of_targets), abs=0.25)


def expected_interval(values: np.ndarray) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def test_about_95_percent_of_intervals_and_tests_hold_where_targets_differ() -> None:
    rng = np.random.default_rng(8)
    covered, rejected = 0, 0
    for repeat in range(300):
        values = rng.normal(0, 3, (8, 1, 1)) + rng.normal(0, 1, (8, 3, 1)) + rng.normal(0, 2, 30)
        values = values + rng.normal(0, 2, (8, 1, 30)) + rng.normal(0, 3, (8, 3, 30))
        result = bootstrap_interval([Sample(values, "a")], mean, resamples=400, seed=repeat)
        covered += result.low <= 0 <= result.high
        rejected += result.p_above(0) <= 0.025
    assert covered / 300 >= 0.92
    assert rejected / 300 <= 0.05


def test_interval_equals_literal_resampling_of_seeds_and_items() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(1, 1, (4, 30)), rng.normal(0, 1, (4, 30))
    first[:, 5:8] = second[:, 5:8] = np.nan
    result = bootstrap_interval([sample(first), sample(second)], difference, resamples=4000)
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
    paired = bootstrap_interval([sample(first), sample(second)], difference)
    unpaired = bootstrap_interval([sample(first), sample(second, "b")], difference)
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
        result = bootstrap_interval([sample(values)], mean, resamples=400, seed=repeat)
        covered += result.low <= 0 <= result.high
    assert covered / 300 >= 0.92


def test_one_seed_gives_the_bootstrap_over_items() -> None:
    values = np.random.default_rng(1).normal(0, 1, (1, 100))
    result = bootstrap_interval([sample(values)], mean)
    half = 1.96 * values.std() / 10
    assert result.low == pytest.approx(values.mean() - half, abs=0.03)
    assert result.high == pytest.approx(values.mean() + half, abs=0.03)


def test_samples_of_different_seeds_or_targets_are_refused() -> None:
    def made(seeds: tuple[int, ...], targets: tuple[str, ...] = ("x",)) -> Sample:
        return Sample(np.ones((len(targets), len(seeds), 3)), "a", seeds, targets)

    with pytest.raises(ValueError, match="different seeds"):
        bootstrap_interval([made((0, 1)), made((3, 4))], difference)
    with pytest.raises(ValueError, match="different targets"):
        bootstrap_interval([made((0,), ("x", "y")), made((0,), ("y", "x"))], difference)
    with pytest.raises(ValueError, match="different numbers of seeds: 2, 3"):
        bootstrap_interval([made((0, 1)), Sample(np.ones((1, 3, 3)), "a")], difference)
    bootstrap_interval([made((0, 1)), Sample(np.ones((1, 1, 3)), "a")], difference)


def test_an_item_counts_only_where_it_counts_in_all_samples_of_the_same_items() -> None:
    first, second = np.array([[1.0, 100.0]]), np.array([[0.0, np.nan]])
    assert bootstrap_interval([sample(first), sample(second)], difference).value == 1.0
    assert bootstrap_interval([sample(first), sample(second, "b")], difference).value == 50.5
