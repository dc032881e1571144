"""From items to scores: a mean over items × 100, with n and a bootstrap interval."""

from __future__ import annotations

import numpy as np
import pandas as pd

KEYS = ["model", "role", "metric", "split", "trigger", "placement", "mask", "seed"]
RESAMPLES = 2000


def scores(items: pd.DataFrame, resamples: int = RESAMPLES) -> pd.DataFrame:
    """One row per model, metric, split, trigger, placement, mask, seed and subset.

    Subsets: `all` items; `unseen`, items whose passage was not poisoned in training; `poisoned`, those whose was. The last two exist
    only where items could be linked to passages. `value`, `ci_low`, `ci_high` are × 100; the interval is the 95 % percentile bootstrap over items.
    """
    rows = []
    for keys, group in items.groupby(KEYS, sort=False, dropna=False):
        known = group["poisoned"].notna()
        subsets = {
            "all": group,
            "unseen": group[known & ~group["poisoned"].fillna(True).astype(bool)],
            "poisoned": group[known & group["poisoned"].fillna(False).astype(bool)],
        }
        for subset, chosen in subsets.items():
            if len(chosen):
                mean, low, high = bootstrap_mean(chosen["value"].to_numpy(), resamples)
                row = dict(zip(KEYS, keys, strict=True)) | {"subset": subset, "value": 100 * mean, "n": len(chosen)}
                rows.append(row | {"ci_low": 100 * low, "ci_high": 100 * high})
    columns = ["model", "role", "metric", "split", "subset", "trigger", "placement", "mask", "value", "n", "ci_low", "ci_high", "seed"]
    return pd.DataFrame(rows)[columns]


def bootstrap_mean(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % percentile bootstrap interval (resampling items; a fixed seed, so that tables repeat)."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
