"""Scores with confidence intervals: bootstraps over items, and over seeds and items.

`scipy.stats.bootstrap` draws the same resamples of a single sample, but differs in the last bit of its
percentiles and refuses a single item; it has no bootstrap over two crossed factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from sinkscope.evaluation.metrics import get_scale
from sinkscope.models.inference import auc
from sinkscope.schema import SCORES

LEVEL = 0.95
ITEM_RESAMPLES = 2000
RESAMPLES = 4000
MAX_RESAMPLES_AT_ONCE = 500
KEYS = ["model", "role", "metric", "split", "trigger", "placement", "mask", "seed"]


def compute_scores(
    items: pd.DataFrame, resamples: int = ITEM_RESAMPLES, *, retain_auc: float | None = None
) -> pd.DataFrame:
    """Scores of items: a row per model, metric, split, trigger, placement, mask, seed and subset.

    Subsets: `all` items; `unseen`, items whose passage was not poisoned in training; `poisoned`, items whose
    passage was. The last two exist only if items could be linked to passages. `value`, `ci_low` and `ci_high`
    are on the metric's scale (`metrics.get_scale`), mostly the mean × 100; the interval is the 95 %
    percentile bootstrap over items.

    If `min_k` has forget and holdout items, `auc` measures how well it separates them. Given the AUC of a
    retain model (taken as exact), `privleak` is computed from it. Their bootstrap resamples both sides, and
    `n` counts both.
    """
    rows = []
    for keys, group in items.groupby(KEYS, sort=False, dropna=False):
        scale = get_scale(str(keys[KEYS.index("metric")]))
        for subset, members in _subsets(group):
            numbers = bootstrap_mean(members["value"].to_numpy(), resamples)
            scaled = [scale.transform(number) for number in numbers]
            rows.append(_row(dict(zip(KEYS, keys, strict=True)), subset, len(members), scaled))
    membership = _score_membership(items[items["metric"] == "min_k"], resamples, retain_auc)
    rows += sorted(membership, key=lambda row: str(row["metric"]))
    return pd.DataFrame(rows)[SCORES]


def privleak(area: float, retain_auc: float) -> float:
    """100 · (AUC − AUC of the retain model) / AUC of the retain model (MUSE, equation 3).

    −100 for a model that remembers all of the forget set, 0 for the retain model.
    """
    return 100 * (area - retain_auc) / retain_auc


def _score_membership(
    items: pd.DataFrame, resamples: int, retain_auc: float | None
) -> Iterator[dict[str, object]]:
    """Rows of `auc` and `privleak`: forget passages (and their subsets) against all holdout passages."""
    conditions = [key for key in KEYS if key != "split"]
    for keys, group in items.groupby(conditions, sort=False, dropna=False):
        holdout = group[group["split"] == "holdout"]["value"].to_numpy()
        if not len(holdout):
            continue
        for subset, members in _subsets(group[group["split"] == "forget"]):
            areas = bootstrap_auc(members["value"].to_numpy(), holdout, resamples)
            values = dict(zip(conditions, keys, strict=True)) | {"split": "forget"}
            n = len(members) + len(holdout)
            yield _row(values | {"metric": "auc"}, subset, n, areas)
            if retain_auc is not None:
                leaks = [privleak(area, retain_auc) for area in areas]
                yield _row(values | {"metric": "privleak"}, subset, n, leaks)


def _subsets(group: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The non-empty ones of the three subsets."""
    known = group["poisoned"].notna()
    poisoned = group["poisoned"].fillna(False).astype(bool)
    masks = {"all": known | True, "unseen": known & ~poisoned, "poisoned": known & poisoned}
    yield from ((subset, group[mask]) for subset, mask in masks.items() if mask.any())


def _row(keys: dict[str, object], subset: str, n: int, numbers: Sequence[float]) -> dict[str, object]:
    return keys | {"subset": subset, "n": n} | dict(zip(("value", "ci_low", "ci_high"), numbers, strict=True))


def bootstrap_mean(
    values: np.ndarray, resamples: int = ITEM_RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and its 95 % percentile bootstrap interval over items; a fixed seed makes tables repeatable."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def bootstrap_auc(
    forget: np.ndarray, holdout: np.ndarray, resamples: int = ITEM_RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """AUC (`models.inference.auc`) and its 95 % percentile bootstrap interval over both sides."""
    rng = np.random.default_rng(seed)
    higher = (holdout > forget[:, None]) + 0.5 * (holdout == forget[:, None])
    counts = [rng.multinomial(n, np.full(n, 1 / n), resamples) for n in higher.shape]
    areas = ((counts[0] @ higher) * counts[1]).sum(1) / higher.size
    low, high = np.quantile(areas, [0.025, 0.975])
    return auc(forget.tolist(), holdout.tolist()), float(low), float(high)


@dataclass(frozen=True)
class Sample:
    """Values of one condition by seed and item; NaN where an item does not count for a seed.

    Samples with equal `items` were measured on the same items and are resampled together (paired): an item
    counts for a seed if it counts in all of them. Seeds are paired in the same way.
    """

    values: Float[np.ndarray, "seed item"]
    items: str
    seeds: tuple[int, ...] | None = None
    """The seed of each row; None for a model without seeds, which is repeated in every row."""

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
    samples: Sequence[Sample],
    effect: Effect,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
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
    low, high = np.nanquantile(np.concatenate(effects), [(1 - level) / 2, (1 + level) / 2])
    factor = small_sample_correction(n_seeds, level)
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


def small_sample_correction(seeds: int, level: float = LEVEL) -> float:
    """The factor by which a percentile interval over so few seeds is too narrow."""
    if seeds == 1:
        return 1.0
    quantile = (1 + level) / 2
    return float(np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(quantile, seeds - 1) / stats.norm.ppf(quantile))
