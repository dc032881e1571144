"""Ordinary least squares with an intercept per group and intervals that resample clusters of rows.

statsmodels has least squares with cluster-robust standard errors, but not the cluster bootstrap with a
small-sample correction that the published intervals come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from bootstrap import RESAMPLES, small_sample_correction
from jaxtyping import Float, Int

from sinkscope.evaluation.statistics import LEVEL


def fit_clustered(
    cells: pd.DataFrame,
    outcome: str,
    predictors: Sequence[str],
    *,
    intercepts: str,
    clusters: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Least squares of the outcome on all predictors, within groups.

    `value` is in units of the outcome per standard deviation (`spread`) of the predictor around the means of
    its groups. Cells of a cluster are not independent: the interval resamples clusters with replacement and
    is corrected for their small number (see `bootstrap_interval`). NaN where a coefficient is not determined,
    because predictors are collinear or constant within groups.

    Args:
        intercepts: the column with the groups; each has its own mean.
        clusters: the columns that identify a cluster.

    Returns:
        Columns predictor, value, ci_low, ci_high, spread, n, clusters.

    Raises:
        ValueError: there are no cells, or a value is missing.
    """
    values = cells[[outcome, *predictors]].to_numpy(float)
    if not len(values) or np.isnan(values).any():
        raise ValueError("a regression needs cells, and a number in each of them")
    y, x = values[:, 0], values[:, 1:]
    cluster = cells.groupby(list(clusters), sort=False).ngroup().to_numpy()
    group = cells.groupby(intercepts, sort=False).ngroup().to_numpy()
    x = x - np.stack([x[group == each].mean(0) for each in range(group.max() + 1)])[group]
    spread = np.where(np.abs(x).max(0) > 1e-12, x.std(0), 0.0)
    x = np.divide(x, spread, out=np.zeros_like(x), where=spread > 0)
    n_clusters = cluster.max() + 1
    (value,) = _coefficients(x, y, cluster, group, np.ones((1, n_clusters)))
    shares = np.full(n_clusters, 1 / n_clusters)
    counts = np.random.default_rng(seed).multinomial(n_clusters, shares, resamples)
    resampled = _coefficients(x, y, cluster, group, counts.astype(float))
    low, high = np.full((2, len(predictors)), np.nan)
    is_defined = ~np.isnan(resampled).any(1)
    if is_defined.any():
        low, high = np.quantile(resampled[is_defined], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    correction = small_sample_correction(n_clusters)
    columns = {
        "predictor": list(predictors),
        "value": value,
        "ci_low": value + correction * (low - value),
        "ci_high": value + correction * (high - value),
        "spread": spread,
    }
    return pd.DataFrame(columns).assign(n=len(cells), clusters=n_clusters)


def _coefficients(
    x: Float[np.ndarray, "cell predictor"],
    y: Float[np.ndarray, " cell"],
    cluster: Int[np.ndarray, " cell"],
    group: Int[np.ndarray, " cell"],
    counts: Float[np.ndarray, "resample cluster"],
) -> Float[np.ndarray, "resample predictor"]:
    """Least squares with each cluster counted `counts` times.

    Subtracting group means first is the same as intercepts (Frisch, Waugh, Lovell).
    """
    columns = np.column_stack([x, y])
    in_cluster, in_group = np.eye(cluster.max() + 1)[cluster], np.eye(group.max() + 1)[group]
    products = np.einsum("ck,ci,cj->kij", in_cluster, columns, columns)
    squares = np.einsum("rk,kij->rij", counts, products)
    for member in in_group.T:
        weights = (in_cluster * member[:, None]).T
        sums, sizes = counts @ weights @ columns, counts @ weights.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.einsum("ri,rj->rij", sums, sums) / sizes[:, None, None]
        squares -= np.where(sizes[:, None, None] > 0, means, 0.0)
    left, right = squares[:, :-1, :-1], squares[:, :-1, -1]
    coefficients = np.full(right.shape, np.nan)
    rank = np.linalg.matrix_rank(left, tol=1e-8 * len(x), hermitian=True)
    is_determined = rank == left.shape[1]
    solution = np.linalg.solve(left[is_determined], right[is_determined][..., None])
    coefficients[is_determined] = solution[..., 0]
    return coefficients
