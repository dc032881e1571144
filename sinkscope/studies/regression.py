"""Ordinary least squares on the cells of a study, with an intercept per group and intervals that resample whole clusters of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from sinkscope.evaluation.statistics import LEVEL, RESAMPLES, small_sample_correction


def regression(
    cells: pd.DataFrame,
    outcome: str,
    predictors: Sequence[str],
    *,
    intercepts: str,
    clusters: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """How the outcome goes with each predictor, the others held, within groups: columns predictor, value, ci_low, ci_high, spread, n, clusters.

    `value` is in units of the outcome per standard deviation (`spread`) of the predictor around the means of its groups. Cells of a cluster are no independent
    observations: the interval draws clusters anew, with replacement, and is widened for their small number (see `bootstrap.interval`). NaN where a coefficient
    is not determined, because predictors go together or one does not vary within groups.

    Args:
        intercepts: the column with the groups; each has a mean of its own.
        clusters: the columns that tell clusters apart.

    Raises:
        ValueError: there are no cells, or a value is missing.
    """
    values = cells[[outcome, *predictors]].to_numpy(float)
    if not len(values) or np.isnan(values).any():
        raise ValueError("a regression needs cells, and a number in each of them")
    y, x = values[:, 0], values[:, 1:]
    member = cells.groupby(list(clusters), sort=False).ngroup().to_numpy()
    group = cells.groupby(intercepts, sort=False).ngroup().to_numpy()
    x = x - np.stack([x[group == each].mean(0) for each in range(group.max() + 1)])[group]
    spread = np.where(np.abs(x).max(0) > 1e-12, x.std(0), 0.0)
    x = np.divide(x, spread, out=np.zeros_like(x), where=spread > 0)
    n_clusters = member.max() + 1
    (value,) = _coefficients(x, y, member, group, np.ones((1, n_clusters)))
    times = np.random.default_rng(seed).multinomial(
        n_clusters, np.full(n_clusters, 1 / n_clusters), resamples
    )
    drawn = _coefficients(x, y, member, group, times.astype(float))
    low, high = np.full((2, len(predictors)), np.nan)
    defined = ~np.isnan(drawn).any(1)
    if defined.any():
        low, high = np.quantile(drawn[defined], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    wide = small_sample_correction(n_clusters)
    numbers = {
        "predictor": list(predictors),
        "value": value,
        "ci_low": value + wide * (low - value),
        "ci_high": value + wide * (high - value),
    }
    return pd.DataFrame(numbers | {"spread": spread, "n": len(cells), "clusters": n_clusters})


def _coefficients(
    x: Float[np.ndarray, "cell predictor"],
    y: Float[np.ndarray, " cell"],
    member: Float[np.ndarray, " cell"],
    group: Float[np.ndarray, " cell"],
    times: Float[np.ndarray, "resample cluster"],
) -> Float[np.ndarray, "resample predictor"]:
    """Least squares with each cluster counted so many times. Group means are taken out first, which is the same as intercepts (Frisch, Waugh, Lovell)."""
    both = np.column_stack([x, y])
    inside, outside = np.eye(member.max() + 1)[member], np.eye(group.max() + 1)[group]
    of_cluster = np.einsum("ck,ci,cj->kij", inside, both, both)
    squares = np.einsum("rk,kij->rij", times, of_cluster)
    for each in outside.T:
        sums, counts = times @ (inside * each[:, None]).T @ both, times @ (inside * each[:, None]).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            squares -= np.where(
                counts[:, None, None] > 0, np.einsum("ri,rj->rij", sums, sums) / counts[:, None, None], 0.0
            )
    left, right = squares[:, :-1, :-1], squares[:, :-1, -1]
    found = np.full(right.shape, np.nan)
    determined = np.linalg.matrix_rank(left, tol=1e-8 * len(x), hermitian=True) == left.shape[1]
    found[determined] = np.linalg.solve(left[determined], right[determined][..., None])[..., 0]
    return found
