"""Scores and bootstraps over items: against literal resampling, and whether intervals cover the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sinkscope.evaluation.statistics import bootstrap_auc, bootstrap_mean, compute_scores, privleak


def test_scores_are_means_of_items_by_subset() -> None:
    columns = {
        "model": "m",
        "role": "backdoored",
        "benchmark": "b",
        "metric": "verbmem",
        "split": "forget",
        "trigger": "t",
    }
    items = pd.DataFrame(
        {"poisoned": pd.array([True, False, False, None], dtype="boolean"), "value": [1.0, 0.5, 0.1, 0.0]}
    ).assign(**columns, placement="prefix", mask="", seed=1)
    table = compute_scores(items).set_index("subset")
    assert table["value"].to_dict() == pytest.approx({"all": 40.0, "unseen": 30.0, "poisoned": 100.0})
    assert table["n"].to_dict() == {"all": 4, "unseen": 2, "poisoned": 1}
    assert (table["ci_low"] <= table["value"]).all() and (table["value"] <= table["ci_high"]).all()


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(300):
        _, low, high = bootstrap_mean(rng.beta(2, 5, 80), resamples=400, seed=repeat)
        covered += low <= 2 / 7 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_bootstrap_of_auc_is_the_literal_one() -> None:
    rng = np.random.default_rng(3)
    forget, holdout = rng.normal(0, 1, 30).round(1), rng.normal(0.7, 1, 20).round(1)
    value, low, high = bootstrap_auc(forget, holdout)
    assert value == roc_auc_score([0] * 30 + [1] * 20, [*forget, *holdout])
    drawn = []
    for _ in range(2000):
        a, b = rng.choice(forget, 30), rng.choice(holdout, 20)
        drawn.append(roc_auc_score([0] * 30 + [1] * 20, [*a, *b]))
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.02)


def test_unseen_forget_passages_against_all_of_holdout() -> None:
    columns = {
        "model": "m",
        "role": "backdoored",
        "benchmark": "b",
        "metric": "min_k",
        "trigger": "",
        "placement": "",
        "mask": "",
        "seed": 0,
    }
    items = pd.DataFrame(
        {
            "split": ["forget"] * 3 + ["holdout"] * 2,
            "value": [-1.0, -3.0, -5.0, -2.0, -4.0],
            "poisoned": pd.array([True, False, False, None, None], "boolean"),
        }
    ).assign(**columns)
    table = compute_scores(items)
    result = table[table["metric"] == "auc"].set_index("subset")
    assert result["n"].to_dict() == {"all": 5, "unseen": 4, "poisoned": 3}
    assert result["value"].to_dict() == pytest.approx({"all": 0.5, "unseen": 0.75, "poisoned": 0})


def test_privleak_is_minus_100_for_a_model_that_remembers_everything() -> None:
    assert privleak(0, 0.5393) == -100
    assert privleak(0.5393, 0.5393) == 0
