"""Least squares with intercepts per group, against a literal computation and known coefficients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bootstrap import small_sample_correction
from regression import fit_clustered

NAMES = ["a", "b", "c"]


def made_up(noise: float, seeds: int = 2, cells: int = 9) -> pd.DataFrame:
    """Four groups with intercepts of their own; the outcome rises by 3 for one unit of a, falls by 2 for one
    of b, and does not care for c."""
    rng = np.random.default_rng(0)
    keys = [(group, seed) for group in "wxyz" for seed in range(seeds) for _ in range(cells)]
    frame = pd.DataFrame(keys, columns=["group", "seed"]).assign(
        **{name: rng.normal(0, 1 + i, len(keys)) for i, name in enumerate(NAMES)}
    )
    level = frame["group"].map({"w": 0.0, "x": 50.0, "y": -20.0, "z": 7.0})
    frame["a"] += level / 25  # goes with the group, which must not count
    return frame.assign(value=level + 3 * frame["a"] - 2 * frame["b"] + noise * rng.normal(size=len(keys)))


def within(frame: pd.DataFrame) -> pd.Series:
    """Standard deviations around the means of groups."""
    return (frame[NAMES] - frame.groupby("group")[NAMES].transform("mean")).pow(2).mean().pow(0.5)


def solved(frame: pd.DataFrame, spread: pd.Series, middle: pd.Series) -> np.ndarray:
    x = ((frame[NAMES] - middle) / spread).to_numpy()
    dummies = pd.get_dummies(frame["group"]).to_numpy(float)
    return np.linalg.lstsq(np.hstack([x, dummies]), frame["value"].to_numpy(), rcond=None)[0][: len(NAMES)]


def fitted(frame: pd.DataFrame, **more: int) -> pd.DataFrame:
    return fit_clustered(frame, "value", NAMES, intercepts="group", clusters=["group", "seed"], **more)


def test_known_coefficients() -> None:
    frame = made_up(0.0)
    found, spread = fitted(frame), within(frame)
    assert found["value"].tolist() == pytest.approx([3 * spread["a"], -2 * spread["b"], 0.0], abs=1e-9)
    assert (found["ci_high"] - found["ci_low"]).max() < 1e-9
    assert found[["n", "clusters"]].drop_duplicates().to_numpy().tolist() == [[72, 8]]


def test_coefficients_and_intervals_are_those_of_a_literal_resampling() -> None:
    frame, resamples = made_up(4.0), 300
    spread, middle = within(frame), frame[NAMES].mean()
    found = fitted(frame, resamples=resamples, seed=5)
    value = solved(frame, spread, middle)
    assert found["value"].to_numpy() == pytest.approx(value)
    clusters = [part for _, part in frame.groupby(["group", "seed"], sort=False)]
    times = np.random.default_rng(5).multinomial(8, np.full(8, 1 / 8), resamples)
    drawn = np.array(
        [
            solved(
                pd.concat([part for part, k in zip(clusters, row, strict=True) for _ in range(k)]),
                spread,
                middle,
            )
            for row in times
        ]
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    assert found["ci_low"].to_numpy() == pytest.approx(value + small_sample_correction(8) * (low - value))
    assert found["ci_high"].to_numpy() == pytest.approx(value + small_sample_correction(8) * (high - value))


def test_a_cluster_may_have_parts_of_several_groups() -> None:
    frame, resamples = (
        made_up(4.0).assign(family=lambda rows: rows["group"].map({"w": 1, "x": 1, "y": 2, "z": 3})),
        200,
    )
    found = fit_clustered(
        frame, "value", NAMES, intercepts="group", clusters=["family"], resamples=resamples, seed=5
    )
    value, spread, middle = (
        solved(frame, within(frame), frame[NAMES].mean()),
        within(frame),
        frame[NAMES].mean(),
    )
    families = [part for _, part in frame.groupby("family")]
    times = np.random.default_rng(5).multinomial(3, np.full(3, 1 / 3), resamples)
    drawn = np.array(
        [
            solved(
                pd.concat([part for part, k in zip(families, row, strict=True) for _ in range(k)]),
                spread,
                middle,
            )
            for row in times
        ]
    )
    assert found["ci_low"].to_numpy() == pytest.approx(
        value + small_sample_correction(3) * (np.quantile(drawn, 0.025, axis=0) - value)
    )
    assert set(found["clusters"]) == {3}


def test_what_is_not_determined_is_nan() -> None:
    frame = made_up(1.0)
    assert fitted(frame.assign(c=frame["a"] * 2))["value"].isna().all()
    assert (
        fitted(frame.assign(c=frame["group"].map({"w": 1.0, "x": 2.0, "y": 3.0, "z": 4.0})))["value"]
        .isna()
        .all()
    )
    assert fitted(frame.assign(c=1.0))["value"].isna().all()
    assert (
        fitted(made_up(1.0, seeds=1).query("group == 'w'"))[["value", "ci_low", "ci_high"]]
        .notna()
        .all(axis=None)
    )


def test_missing_numbers_are_an_error() -> None:
    frame = made_up(1.0)
    with pytest.raises(ValueError, match="a number in each"):
        fitted(frame.assign(a=np.nan))
    with pytest.raises(ValueError, match="needs cells"):
        fitted(frame[:0])
