"""Intervals for effects that are measured on the same items under several seeds: a bootstrap over both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

RESAMPLES = 4000
CHUNK = 500
LEVEL = 0.95


@dataclass(frozen=True)
class Sample:
    """What one condition gave: a row per seed, a column per item; NaN where an item does not count under a seed. Samples with equal `items` were measured
    on the same items and are resampled together (paired): an item counts under a seed where it counts in all of them. So are the seeds of all samples.
    """

    values: Float[np.ndarray, "seed item"]
    items: str
    seeds: tuple[int, ...] | None = None
    """Which seeds; None for a model that has none and stands in every row."""

    def means(self) -> Float[np.ndarray, " seed"]:
        return np.nanmean(self.values, axis=1)


Effect = Callable[..., Float[np.ndarray, "*resample"]]
"""Called with one array of per-seed means for each sample (seeds last); gives a number for each resample."""


@dataclass(frozen=True)
class Interval:
    """An effect with its interval; `seeds` and `items` (the most that one sample has) say what it rests on."""

    value: float
    low: float
    high: float
    seeds: int
    items: int


def interval(
    samples: Sequence[Sample],
    effect: Effect,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Seeds and items are drawn anew, independently and with replacement (a crossed two-way bootstrap, Owen 2007, "The pigeonhole bootstrap").

    Few seeds make a bootstrap too narrow: it divides by S where S − 1 is right, and its quantiles are those of a normal distribution where Student's t is
    right. The distances from the effect to the percentiles are therefore widened by sqrt(S / (S − 1)) · t(.975; S − 1) / z(.975), 1.6 for five seeds.
    With one seed only items are resampled, and the interval says nothing of other seeds.

    Raises:
        ValueError: samples have different seeds, or different numbers of the same items.
    """
    (n_seeds,) = _only({len(sample.values) for sample in samples}, "numbers of seeds")
    _only({sample.seeds for sample in samples if sample.seeds is not None} or {None}, "seeds")
    samples = _paired(samples)
    rng = np.random.default_rng(seed)
    value = float(effect(*(sample.means() for sample in samples)))
    drawn = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        rows = rng.integers(0, n_seeds, (size, n_seeds)) if n_seeds > 1 else np.zeros((size, 1), int)
        weights: dict[str, np.ndarray] = {}
        means = []
        for sample in samples:
            n_items = sample.values.shape[1]
            if sample.items not in weights:
                weights[sample.items] = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size).astype(
                    float
                )
            times, counted = weights[sample.items], ~np.isnan(sample.values)
            total = times @ np.where(counted, sample.values, 0.0).T
            with np.errstate(invalid="ignore"):
                means.append(np.take_along_axis(total / (times @ counted.T), rows, axis=1))
        drawn.append(effect(*means))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    wide = small_sample_correction(n_seeds, level)
    return Interval(
        value,
        value + wide * (low - value),
        value + wide * (high - value),
        n_seeds,
        max(sample.values.shape[1] for sample in samples),
    )


def _only(found: set[Any], what: str) -> set[Any]:
    if len(found) != 1:
        raise ValueError(
            f"samples have different {what}: {', '.join(map(str, sorted(found)))}; give all the same"
        )
    return found


def _paired(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, of which an item counts under a seed only where it counts in all that were measured on the same items."""
    counted: dict[str, np.ndarray] = {}
    for sample in samples:
        here = ~np.isnan(sample.values)
        before = counted.setdefault(sample.items, here)
        _only({before.shape, here.shape}, f"sizes of {sample.items}")
        counted[sample.items] = before & here
    return [
        replace(sample, values=np.where(counted[sample.items], sample.values, np.nan)) for sample in samples
    ]


def small_sample_correction(seeds: int, level: float = LEVEL) -> float:
    """By how much a percentile interval over so few seeds is too narrow."""
    if seeds == 1:
        return 1.0
    quantile = (1 + level) / 2
    return float(np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(quantile, seeds - 1) / stats.norm.ppf(quantile))
