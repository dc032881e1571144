"""Crossed bootstrap over seeds and items, for effects that a study measured under several seeds.

`scipy.stats.bootstrap` has no bootstrap over two crossed factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from sinkscope.evaluation.statistics import LEVEL

RESAMPLES = 4000
MAX_RESAMPLES_AT_ONCE = 500


@dataclass(frozen=True)
class Sample:
    """Values of one condition by seed and item; NaN where an item does not count for a seed.

    Samples with equal `items` were measured on the same items and are resampled together (paired): an item
    counts for a seed if it counts in all of them. Seeds are paired in the same way; `seeds` is None for a
    model without seeds, which is repeated in every row.
    """

    values: Float[np.ndarray, "seed item"]
    items: str
    seeds: tuple[int, ...] | None = None

    def means(self) -> Float[np.ndarray, " seed"]:
        return np.nanmean(self.values, axis=1)


Effect = Callable[..., Float[np.ndarray, "*resample"]]
"""Called with an array of per-seed means for each sample (seeds last); returns a number for each resample."""


@dataclass(frozen=True)
class Interval:
    """An effect with its interval, the number of seeds, and the largest number of items of a sample."""

    value: float
    low: float
    high: float
    seeds: int
    items: int


def bootstrap_interval(
    samples: Sequence[Sample], effect: Effect, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Crossed two-way bootstrap: seeds and items are resampled independently.

    Owen 2007, "The pigeonhole bootstrap". With few seeds a bootstrap interval is too narrow: its variance
    divides by S instead of S − 1, and its quantiles are those of a normal distribution instead of Student's
    t. The distances from the effect to the percentiles are therefore multiplied by sqrt(S / (S − 1)) ·
    t(.975; S − 1) / z(.975), 1.6 for five seeds. With one seed only items are resampled, and the interval
    does not cover the variation between seeds.

    Raises:
        ValueError: samples have different seeds, or different numbers of the same items.
    """
    n_seeds = _require_equal((len(sample.values) for sample in samples), "numbers of seeds")
    _require_equal((sample.seeds for sample in samples if sample.seeds is not None), "seeds")
    samples = _pair(samples)
    rng = np.random.default_rng(seed)
    value = float(effect(*(sample.means() for sample in samples)))
    effects = []
    for start in range(0, resamples, MAX_RESAMPLES_AT_ONCE):
        size = min(MAX_RESAMPLES_AT_ONCE, resamples - start)
        rows = rng.integers(0, n_seeds, (size, n_seeds)) if n_seeds > 1 else np.zeros((size, 1), int)
        effects.append(effect(*_resample_means(samples, rows, rng)))
    low, high = np.nanquantile(np.concatenate(effects), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    factor = small_sample_correction(n_seeds)
    n_items = max(sample.values.shape[1] for sample in samples)
    return Interval(value, value + factor * (low - value), value + factor * (high - value), n_seeds, n_items)


def _resample_means(
    samples: Sequence[Sample], rows: np.ndarray, rng: np.random.Generator
) -> list[Float[np.ndarray, "resample seed"]]:
    """Per-seed means of each sample for resampled items, of the seeds in each of `rows`."""
    weights: dict[str, np.ndarray] = {}
    means = []
    for sample in samples:
        n_items = sample.values.shape[1]
        if sample.items not in weights:
            counts = rng.multinomial(n_items, np.full(n_items, 1 / n_items), len(rows))
            weights[sample.items] = counts.astype(float)
        counted = ~np.isnan(sample.values)
        total = weights[sample.items] @ np.where(counted, sample.values, 0.0).T
        with np.errstate(invalid="ignore"):
            mean = total / (weights[sample.items] @ counted.T)
        means.append(np.take_along_axis(mean, rows, axis=1))
    return means


def _require_equal(values: Iterable[Any], what: str) -> Any:
    """The value that all have in common; None if there are no values."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        names = ", ".join(sorted(map(str, distinct)))
        raise ValueError(f"samples have different {what}: {names}; give samples with equal ones")
    return distinct[0] if distinct else None


def _pair(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, in which an item counts for a seed only if it counts in all samples of the same items."""
    counted: dict[str, np.ndarray] = {}
    for sample in samples:
        known = ~np.isnan(sample.values)
        previous = counted.setdefault(sample.items, known)
        _require_equal((previous.shape, known.shape), f"sizes of {sample.items}")
        counted[sample.items] = previous & known
    return [
        replace(sample, values=np.where(counted[sample.items], sample.values, np.nan)) for sample in samples
    ]


def small_sample_correction(seeds: int) -> float:
    """The factor by which a percentile interval over so few seeds is too narrow."""
    if seeds == 1:
        return 1.0
    quantile = (1 + LEVEL) / 2
    return float(np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(quantile, seeds - 1) / stats.norm.ppf(quantile))
