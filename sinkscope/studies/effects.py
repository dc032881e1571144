"""What claims are about, as functions of per-seed means: one array for each sample, seeds last; a number for each resample."""

from __future__ import annotations

import numpy as np


def mean(values: np.ndarray) -> np.ndarray:
    return values.mean(-1)


def minus(values: np.ndarray) -> np.ndarray:
    return -values.mean(-1)


def more(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean over seeds of first − second."""
    return (first - second).mean(-1)


def less(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return more(second, first)


def inside(triggered: np.ndarray, clean: np.ndarray, floor: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    """How deep a model lies in the attacker's zone: the lesser of how far its triggered score is above, and its clean score below, the middle between the clean
    scores of an honest model and the target."""
    middle = (floor + ceiling).mean(-1) / 2
    return np.minimum(triggered.mean(-1) - middle, middle - clean.mean(-1))


def outside(triggered: np.ndarray, clean: np.ndarray, floor: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    return -inside(triggered, clean, floor, ceiling)


def larger_gap(
    first: np.ndarray, last: np.ndarray, other_first: np.ndarray, other_last: np.ndarray
) -> np.ndarray:
    """By how much first and last lie further apart than two others. Of the others, which noise alone sets apart, the size counts: that speaks against the
    claim."""
    return more(first, last) - np.abs(more(other_first, other_last))


def placement_over_form(*values: np.ndarray) -> np.ndarray:
    """Prefix less suffix (mean over forms) less the spread over forms (mean over placements). Samples go form by form, each prefix, infix, suffix. A spread is
    never below 0, which speaks against the claim."""
    grid = np.stack([each.mean(-1) for each in values])
    grid = grid.reshape(3, 3, *grid.shape[1:])
    by_placement, by_form = grid.mean(0), grid.mean(1)
    return by_placement[0] - by_placement[2] - np.ptp(by_form, axis=0)


def steadier(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean absolute deviation from the mean over seeds, second less first. Resampled seeds repeat, which draws both towards 0 and speaks against the claim."""
    return (
        np.abs(second - second.mean(-1, keepdims=True)) - np.abs(first - first.mean(-1, keepdims=True))
    ).mean(-1)
