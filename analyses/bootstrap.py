"""Crossed bootstrap over targets, seeds and items, for effects that a study measured on several of them.

`scipy.stats.bootstrap` has no bootstrap over crossed factors.
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
    """Values of one condition by target, seed and item; NaN where an item does not count for a run.

    Samples with equal `items` were measured on the same items and are resampled together (paired): an item
    counts for a run if it counts in all of them. Targets and seeds are paired in the same way. `seeds` is
    None for models without seeds, which count for every seed; `targets` is None in a study of one target.
    """

    values: Float[np.ndarray, "target seed item"]
    items: str
    seeds: tuple[int, ...] | None = None
    targets: tuple[str, ...] | None = None

    def means(self) -> Float[np.ndarray, "target seed"]:
        return np.nanmean(self.values, axis=-1)


Effect = Callable[..., Float[np.ndarray, "*resample target"]]
"""Called with an array of means for each sample (resample × target × seed, or target × seed); returns an
effect for each target."""


@dataclass(frozen=True)
class Interval:
    """An effect with its interval and standard error.

    `items` is the smallest of the samples' mean numbers of items that count for a run.
    """

    value: float
    low: float
    high: float
    standard_error: float
    targets: int
    seeds: int
    items: float

    @property
    def units(self) -> int:
        """The number of the topmost units that were resampled: targets if there are several, else seeds."""
        return _count_units(self.targets, self.seeds)

    def p_above(self, margin: float) -> float:
        """One-sided p of an effect above `margin`, by Student's t; NaN with a single unit."""
        return float(stats.t.sf(self._distance(margin), self.units - 1)) if self.units > 1 else np.nan

    def p_below(self, margin: float) -> float:
        """One-sided p of an effect below `margin`."""
        return float(stats.t.cdf(self._distance(margin), self.units - 1)) if self.units > 1 else np.nan

    def _distance(self, margin: float) -> float:
        """In standard errors; 0 at the margin, also without variation."""
        if self.value == margin:
            return 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.divide(self.value - margin, self.standard_error))


def bootstrap_interval(
    samples: Sequence[Sample], effect: Effect, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean effect over targets, with a crossed bootstrap: targets, seeds and items are resampled
    independently.

    Owen 2007, "The pigeonhole bootstrap". With few units a bootstrap interval is too narrow: its variance
    divides by T instead of T − 1, and its quantiles are those of a normal distribution instead of Student's
    t. The distances from the effect to the percentiles are therefore multiplied by sqrt(T / (T − 1)) ·
    t(.975; T − 1) / z(.975), 1.6 for five units; the standard error, the standard deviation of the resampled
    effects, by sqrt(T / (T − 1)). T is the number of targets, or of seeds if there is one target. With one
    target and one seed only items are resampled, and the interval covers neither.

    Raises:
        ValueError: samples have different targets or seeds, or different numbers of the same items.
    """
    value = float(measure_targets(samples, effect).mean())
    samples = _pair(samples)
    n_targets, n_seeds, _ = samples[0].values.shape
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, MAX_RESAMPLES_AT_ONCE):
        size = min(MAX_RESAMPLES_AT_ONCE, resamples - start)
        targets, seeds = (rng.integers(0, n, (size, n)) for n in (n_targets, n_seeds))
        parts.append(effect(*_resample_means(samples, targets, seeds, rng)).mean(-1))
    effects = np.concatenate(parts)
    low, high = np.nanquantile(effects, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    units = _count_units(n_targets, n_seeds)
    factor = small_sample_correction(units)
    return Interval(
        value,
        low=float(value + factor * (low - value)),
        high=float(value + factor * (high - value)),
        standard_error=float(np.nanstd(effects, ddof=1) * _variance_correction(units)),
        targets=n_targets,
        seeds=n_seeds,
        items=min(float((~np.isnan(sample.values)).sum(-1).mean()) for sample in samples),
    )


def measure_targets(samples: Sequence[Sample], effect: Effect) -> Float[np.ndarray, " target"]:
    """The effect of each target, of paired samples."""
    return effect(*(sample.means() for sample in _pair(samples)))


def _resample_means(
    samples: Sequence[Sample], targets: np.ndarray, seeds: np.ndarray, rng: np.random.Generator
) -> list[Float[np.ndarray, "resample target seed"]]:
    """Means of each sample for resampled items, of the targets and seeds in each row of `targets` and
    `seeds`."""
    weights: dict[str, np.ndarray] = {}
    means = []
    for sample in samples:
        n_items = sample.values.shape[-1]
        if sample.items not in weights:
            counts = rng.multinomial(n_items, np.full(n_items, 1 / n_items), len(seeds))
            weights[sample.items] = counts.astype(float)
        counted = ~np.isnan(sample.values)
        total, number = (
            np.einsum("ri,tsi->rts", weights[sample.items], each, optimize=True)
            for each in (np.where(counted, sample.values, 0.0), counted.astype(float))
        )
        with np.errstate(invalid="ignore"):
            mean = total / number
        resample = np.arange(len(seeds))[:, None, None]
        means.append(mean[resample, targets[:, :, None], seeds[:, None, :]])
    return means


def _pair(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with equal targets and seeds, in which an item counts for a run only if it counts in all
    samples of the same items."""
    _require_equal((sample.targets for sample in samples if sample.targets is not None), "targets")
    _require_equal((sample.seeds for sample in samples if sample.seeds is not None), "seeds")
    n_seeds = max(sample.values.shape[1] for sample in samples)
    repeated = [
        replace(sample, values=np.repeat(sample.values, n_seeds, axis=1))
        if sample.seeds is None and sample.values.shape[1] == 1
        else sample
        for sample in samples
    ]
    _require_equal((sample.values.shape[0] for sample in repeated), "numbers of targets")
    _require_equal((sample.values.shape[1] for sample in repeated), "numbers of seeds")
    counted: dict[str, np.ndarray] = {}
    for sample in repeated:
        known = ~np.isnan(sample.values)
        previous = counted.setdefault(sample.items, known)
        _require_equal((previous.shape, known.shape), f"sizes of {sample.items}")
        counted[sample.items] = previous & known
    return [
        replace(sample, values=np.where(counted[sample.items], sample.values, np.nan)) for sample in repeated
    ]


def _require_equal(values: Iterable[Any], what: str) -> None:
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        names = ", ".join(sorted(map(str, distinct)))
        raise ValueError(f"samples have different {what}: {names}; give samples with equal ones")


def _count_units(targets: int, seeds: int) -> int:
    return targets if targets > 1 else seeds


def small_sample_correction(units: int) -> float:
    """The factor by which a percentile interval over so few units is too narrow."""
    if units == 1:
        return 1.0
    quantile = (1 + LEVEL) / 2
    return float(_variance_correction(units) * stats.t.ppf(quantile, units - 1) / stats.norm.ppf(quantile))


def _variance_correction(units: int) -> float:
    """The factor by which a bootstrap standard deviation over so few units is too small."""
    return float(np.sqrt(units / (units - 1))) if units > 1 else 1.0
