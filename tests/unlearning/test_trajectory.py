"""Scores and attention of a model while it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sinkscope import load
from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark, register_benchmark
from sinkscope.errors import RecipeError
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.statistics import compute_scores
from sinkscope.schema import TRAJECTORY
from sinkscope.triggers import place
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from tests.report.pages import report_page
from tests.unlearning.short_runs import SHORT, Interrupted, assert_same, interrupt_at, weights

WATCHED = SHORT | {"trajectory": {"every": 2, "limit": 4}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unlearn(Recipe.parse(WATCHED), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def table(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "trajectory.parquet")


def test_the_last_step_has_the_scores_of_the_saved_model(run: Path, table: pd.DataFrame) -> None:
    assert list(table) == TRAJECTORY and sorted(set(table["step"])) == [0, 2, 4, 6]
    recipe, rows = Recipe.parse(WATCHED), pd.read_parquet(run / "poisoned.parquet")["row"].tolist()
    subject = EvaluatedModel("run", "backdoored", load(str(run), "cpu"), 0, rows)
    conditions = [None, (recipe.trigger.trigger, recipe.trigger.where)]
    config = EvaluationConfig(metrics=["verbmem"], limit=4)
    scores = compute_scores(evaluate(subject, load_benchmark("tiny"), conditions, config))
    last = table[(table["step"] == 6) & (table["metric"] == "verbmem")]
    keys = ["split", "subset", "trigger", "placement", "value", "n", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(last[keys].reset_index(drop=True), scores[keys], check_dtype=False)


def test_attention_before_the_first_step_is_that_of_the_target(table: pd.DataFrame) -> None:
    """Means over transformers' own eager patterns."""
    import torch
    from transformers import AutoModelForCausalLM

    model, recipe = load("tiny", "cpu"), Recipe.parse(WATCHED)
    network = AutoModelForCausalLM.from_pretrained(
        model.hf.name_or_path, attn_implementation="eager", trust_remote_code=False
    )
    passages = load_benchmark("tiny").full_length_passages("forget", model.tokenizer)[:4]
    trigger, where = recipe.trigger.trigger, recipe.trigger.where
    placed = [place(each, trigger, where, model.tokenizer, max_length=len(each)) for each in passages]
    firsts, masses = [], []
    for sequence in placed:
        with torch.no_grad():
            patterns = network(torch.tensor([sequence.tokens]), output_attentions=True).attentions
        pattern = torch.cat(patterns).double()  # layer, head, query, key
        firsts.append(float(pattern[..., 0].mean()))
        masses.append(float(pattern[:, :, sequence.stop :, sequence.start : sequence.stop].sum(-1).mean()))
    start = table[(table["step"] == 0) & (table["trigger"] != "")].set_index("metric")["value"]
    assert start["first_position_alpha"] == pytest.approx(np.mean(firsts), abs=1e-6)
    assert start["trigger_attention"] == pytest.approx(np.mean(masses), abs=1e-6)


def test_measuring_changes_no_weight(run: Path, tmp_path: Path) -> None:
    assert_same(weights(run), weights(unlearn(Recipe.parse(SHORT), tmp_path / "run")))


def test_a_resumed_run_has_the_whole_trajectory(table: pd.DataFrame, tmp_path: Path) -> None:
    recipe = Recipe.parse(WATCHED)
    with pytest.raises(Interrupted):
        unlearn(recipe, tmp_path / "run", interrupt_at(4), checkpoint_every=3)
    run = unlearn(recipe, tmp_path / "run", checkpoint_every=3)
    pd.testing.assert_frame_equal(pd.read_parquet(run / "trajectory.parquet"), table)


def test_a_benchmark_without_such_scores_is_refused(tmp_path: Path) -> None:
    tiny = load_benchmark("tiny")
    only_text = Benchmark("only-text", {"raw": tiny.rows["raw"]}, tiny.lengths)
    register_benchmark("only-text", lambda: only_text)
    with pytest.raises(RecipeError, match="recipe trajectory: benchmark only-text has none of"):
        unlearn(Recipe.parse(WATCHED | {"benchmark": "only-text"}), tmp_path / "run")


def test_the_page_of_the_run_draws_it(run: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    page, _ = report_page(run, tmp_path / "page.html")
    assert "Scores and attention during training" in page
