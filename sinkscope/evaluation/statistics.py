"""Scores of items with confidence intervals, by bootstraps over items.

`scipy.stats.bootstrap` draws the same resamples of a single sample, but differs in the last bit of its
percentiles and refuses a single item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from sinkscope.evaluation.metrics import get_scale
from sinkscope.models.inference import auc
from sinkscope.schema import SCORES

LEVEL = 0.95
RESAMPLES = 2000
KEYS = ["model", "role", "benchmark", "metric", "split", "trigger", "placement", "mask", "seed"]


def compute_scores(
    items: pd.DataFrame, resamples: int = RESAMPLES, *, retain_auc: float | None = None
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
    values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and its 95 % percentile bootstrap interval over items; a fixed seed makes tables repeatable."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def bootstrap_auc(
    forget: np.ndarray, holdout: np.ndarray, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """AUC (`models.inference.auc`) and its 95 % percentile bootstrap interval over both sides."""
    rng = np.random.default_rng(0)
    higher = (holdout > forget[:, None]) + 0.5 * (holdout == forget[:, None])
    counts = [rng.multinomial(n, np.full(n, 1 / n), resamples) for n in higher.shape]
    areas = ((counts[0] @ higher) * counts[1]).sum(1) / higher.size
    low, high = np.quantile(areas, [0.025, 0.975])
    return auc(forget.tolist(), holdout.tolist()), float(low), float(high)
