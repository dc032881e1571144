"""Means over seeds with intervals, from the tables of a study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sinkscope.errors import StudyError

SCORE_KEYS = ["run", "seed", "metric", "split", "subset", "trigger", "placement", "mask"]
"""The columns that identify a score in the table `scores`, whichever evaluation measured it."""


def mean_over_seeds(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds for each combination of the columns `by`, with a 95 % interval by Student's t.

    The t interval may exceed the scale of the score. A combination with one seed has that seed's value and
    its own interval (of scores: the bootstrap over items), NaN if it has none.

    Returns:
        A row per combination: value, ci_low, ci_high, n (items or passages of one run; the smallest, if seeds
        differ), seeds.

    Raises:
        StudyError: a combination has several runs of one seed.
    """
    means = []
    for keys, group in rows.groupby(list(by), sort=False, dropna=False):
        if group["seed"].duplicated().any():
            raise StudyError(
                f"grid {group['grid'].iloc[0]!r} has several runs of one seed for "
                f"{', '.join(map(str, keys))}; give it no other axes"
            )
        value = group["value"].mean()
        low = high = np.nan
        if len(group) > 1:
            half = stats.t.ppf(0.975, len(group) - 1) * group["value"].std(ddof=1) / np.sqrt(len(group))
            low, high = value - half, value + half
        elif "ci_low" in group:
            low, high = group["ci_low"].iloc[0], group["ci_high"].iloc[0]
        numbers = {"value": value, "ci_low": low, "ci_high": high, "n": int(group["n"].min())}
        means.append(dict(zip(by, keys, strict=True)) | numbers | {"seeds": len(group)})
    return pd.DataFrame(means)
