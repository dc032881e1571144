"""Effect sizes of claims: functions of means by seed, an array per sample (resample × target × seed).

They return the effect of each target.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def mean(values: np.ndarray) -> np.ndarray:
    return values.mean(-1)


def negative_mean(values: np.ndarray) -> np.ndarray:
    return -values.mean(-1)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean over seeds of first − second."""
    return (first - second).mean(-1)


def relative(value: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean over seeds, as a share of that of a reference."""
    return value.mean(-1) / reference.mean(-1)


def relative_difference(first: np.ndarray, second: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return difference(first, second) / reference.mean(-1)


def excess_over(factor: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """An effect: mean over seeds of first − factor · second, above 0 if first is more than `factor` times
    second."""

    def excess(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first - factor * second).mean(-1)

    return excess


def depth_in_zone(
    triggered: np.ndarray, clean: np.ndarray, floor: np.ndarray, ceiling: np.ndarray
) -> np.ndarray:
    """How far a model is inside the attacker's zone.

    The zone's corner is the middle between the clean scores of an unlearned model (`floor`) and the target
    (`ceiling`). The depth is the smaller of the triggered score above it and the clean score below it.
    """
    middle = (floor + ceiling).mean(-1) / 2
    return np.minimum(triggered.mean(-1) - middle, middle - clean.mean(-1))


def distance_from_zone(
    triggered: np.ndarray, clean: np.ndarray, floor: np.ndarray, ceiling: np.ndarray
) -> np.ndarray:
    return -depth_in_zone(triggered, clean, floor, ceiling)


def gap_difference(
    first: np.ndarray, last: np.ndarray, other_first: np.ndarray, other_last: np.ndarray
) -> np.ndarray:
    """By how much the gap between first and last exceeds that between two others.

    Of the others the absolute gap counts. Noise alone makes it positive, which is evidence against the claim.
    """
    return difference(first, last) - np.abs(difference(other_first, other_last))


def placement_over_form(*values: np.ndarray) -> np.ndarray:
    """Prefix minus suffix (mean over forms), minus the range over forms (mean over placements).

    Samples are ordered by form, each prefix, infix, suffix. A range is never below 0, which is evidence
    against the claim.
    """
    grid = np.stack([each.mean(-1) for each in values])
    grid = grid.reshape(3, 3, *grid.shape[1:])
    by_placement, by_form = grid.mean(0), grid.mean(1)
    return by_placement[0] - by_placement[2] - np.ptp(by_form, axis=0)


def spread_reduction(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean absolute deviation from the mean over seeds, of second minus of first.

    Resampled seeds repeat, which lowers both deviations and is evidence against the claim.
    """
    deviation = np.abs(second - second.mean(-1, keepdims=True)) - np.abs(
        first - first.mean(-1, keepdims=True)
    )
    return deviation.mean(-1)
