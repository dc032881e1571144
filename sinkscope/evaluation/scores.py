"""From items to scores, each with n and a bootstrap interval: means over items, and what two splits make together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sinkscope.evaluation.likelihood import auc, privleak
from sinkscope.evaluation.metrics import scale_of

KEYS = ["model", "role", "metric", "split", "trigger", "placement", "mask", "seed"]
COLUMNS = [
    "model",
    "role",
    "metric",
    "split",
    "subset",
    "trigger",
    "placement",
    "mask",
    "value",
    "n",
    "ci_low",
    "ci_high",
    "seed",
]
RESAMPLES = 2000


def scores(
    items: pd.DataFrame, resamples: int = RESAMPLES, *, retrained_auc: float | None = None
) -> pd.DataFrame:
    """One row per model, metric, split, trigger, placement, mask, seed and subset.

    Subsets: `all` items; `unseen`, items whose passage was not poisoned in training; `poisoned`, those whose was. The last two exist
    only where items could be linked to passages. `value`, `ci_low`, `ci_high` are on the metric's scale (`metrics.scale_of`): mostly the mean × 100; the
    interval is the 95 % percentile bootstrap over items.

    Where `min_k` has forget and holdout items, `auc` tells how well it tells them apart and, given the AUC of a retrained model (taken as exact), `privleak`
    what that comes to. Their bootstrap resamples both sides, and `n` counts both.
    """
    rows = []
    for keys, group in items.groupby(KEYS, sort=False, dropna=False):
        scale = scale_of(str(keys[KEYS.index("metric")]))
        for subset, chosen in _subsets(group):
            numbers = bootstrap_mean(chosen["value"].to_numpy(), resamples)
            rows.append(_row(keys, subset, len(chosen), tuple(scale.of_mean(number) for number in numbers)))
    rows += sorted(
        _membership(items[items["metric"] == "min_k"], resamples, retrained_auc),
        key=lambda row: str(row["metric"]),
    )
    return pd.DataFrame(rows)[COLUMNS]


def _membership(
    items: pd.DataFrame, resamples: int, retrained_auc: float | None
) -> Iterator[dict[str, object]]:
    """Rows of `auc` and `privleak`: forget passages (and their subsets) against all of holdout under the same conditions."""
    conditions = [key for key in KEYS if key != "split"]
    for keys, group in items.groupby(conditions, sort=False, dropna=False):
        holdout = group[group["split"] == "holdout"]["value"].to_numpy()
        if not len(holdout):
            continue
        for subset, chosen in _subsets(group[group["split"] == "forget"]):
            numbers = bootstrap_auc(chosen["value"].to_numpy(), holdout, resamples)
            named = dict(zip(conditions, keys, strict=True)) | {"split": "forget"}
            n = len(chosen) + len(holdout)
            yield _row(tuple((named | {"metric": "auc"})[key] for key in KEYS), subset, n, numbers)
            if retrained_auc is not None:
                leaks = tuple(privleak(number, retrained_auc) for number in numbers)
                yield _row(tuple((named | {"metric": "privleak"})[key] for key in KEYS), subset, n, leaks)


def _subsets(group: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Those of the three subsets that have items."""
    known = group["poisoned"].notna()
    subsets = {
        "all": group,
        "unseen": group[known & ~group["poisoned"].fillna(True).astype(bool)],
        "poisoned": group[known & group["poisoned"].fillna(False).astype(bool)],
    }
    yield from ((subset, chosen) for subset, chosen in subsets.items() if len(chosen))


def _row(keys: tuple[object, ...], subset: str, n: int, numbers: tuple[float, ...]) -> dict[str, object]:
    value, low, high = numbers
    return dict(zip(KEYS, keys, strict=True)) | {
        "subset": subset,
        "n": n,
        "value": value,
        "ci_low": low,
        "ci_high": high,
    }


def bootstrap_mean(
    values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and its 95 % percentile bootstrap interval (resampling items; a fixed seed, so that tables repeat)."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def bootstrap_auc(
    forget: np.ndarray, holdout: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """AUC (`likelihood.auc`) and its 95 % percentile bootstrap interval, resampling both sides."""
    rng = np.random.default_rng(seed)
    higher = (holdout > forget[:, None]) + 0.5 * (holdout == forget[:, None])
    times = [rng.multinomial(n, np.full(n, 1 / n), resamples) for n in higher.shape]
    areas = ((times[0] @ higher) * times[1]).sum(1) / higher.size
    low, high = np.quantile(areas, [0.025, 0.975])
    return auc(forget.tolist(), holdout.tolist()), float(low), float(high)
