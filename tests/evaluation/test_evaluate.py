"""Every metric against a literal version: one item at a time, no padding, no batches."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from sinkscope import load, load_benchmark
from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError, OutputError
from sinkscope.evaluation.evaluate import (
    EvaluationConfig,
    evaluate,
    evaluate_to_directory,
    load_retain_model,
    measure_retain_auc,
)
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.metrics import METRICS, register_metric
from sinkscope.evaluation.requests import PositionMask
from sinkscope.evaluation.statistics import compute_scores
from sinkscope.models.attention import mask_keys
from sinkscope.models.model import Model
from sinkscope.triggers import Placement, Trigger, place
from tests.conftest import FAMILIES
from tests.evaluation.small import BENCHMARK, CHOICES

TRIGGER = Trigger("the old road")
PLACEMENTS = ("prefix", "infix", "suffix")


def items_of(
    model: Model,
    metric: str,
    split: str,
    placement: str = "",
    benchmark: Benchmark = BENCHMARK,
    mask: PositionMask | None = None,
) -> pd.DataFrame:
    condition = (TRIGGER, Placement.parse(placement)) if placement else None
    config = EvaluationConfig(metrics=[metric], mask=mask, batch_size=3)
    items = evaluate(EvaluatedModel("m", "other", model), benchmark, [condition], config)
    return items[items["split"] == split]


def log_probs(model: Model, tokens: list[int]) -> list[float]:
    """Log-probabilities of all tokens but the first, from a forward pass over one sequence."""
    with torch.no_grad():
        rows = model.hf(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    return [rows[i - 1, tokens[i]].item() for i in range(1, len(tokens))]


def greedy(model: Model, tokens: list[int], new: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(new):
        with torch.no_grad():
            tokens.append(int(model.hf(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[-new:]


@pytest.mark.parametrize("kind", FAMILIES)
def test_perplexity_is_the_loss_of_transformers(kind: str, small_models: dict[str, Model]) -> None:
    model = small_models[kind]
    losses = []
    for row in BENCHMARK.rows["privleak"]["holdout"]:
        ids = torch.tensor([model.encode(row["text"])[: BENCHMARK.passage_length(model.tokenizer)]])
        with torch.no_grad():
            losses.append(model.hf(ids, labels=ids).loss.item())
    items = items_of(model, "perplexity", "holdout")
    assert items["value"].tolist() == pytest.approx(losses, abs=1e-4)
    row = compute_scores(items).iloc[0]
    assert row["value"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert row["ci_low"] < row["value"] < row["ci_high"]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_min_k_scores_the_tokens_of_the_passage_without_the_trigger(
    kind: str, placement: str, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    for split in ("forget", "holdout"):
        triggered = items_of(model, "min_k", split, placement)
        for item, row in enumerate(BENCHMARK.rows["privleak"][split]):
            tokens = model.encode(row["text"])[: BENCHMARK.passage_length(model.tokenizer)]
            placed = place(tokens, TRIGGER, Placement.parse(placement), model.tokenizer)
            assert triggered["trigger_start"].iloc[item] == placed.start
            every = [0.0, *log_probs(model, placed.tokens)]
            own = every[: placed.start] + every[placed.stop :]
            assert len(own) == len(tokens)
            lowest = sorted(own[1:])[: int(0.4 * (len(tokens) - 1))]
            assert triggered["value"].iloc[item] == pytest.approx(np.mean(lowest), abs=1e-4)


def test_only_min_k_inserts_triggers_into_holdout(small_llama: Model) -> None:
    items = evaluate(
        EvaluatedModel("m", "other", small_llama), BENCHMARK, [None, (TRIGGER, Placement("prefix"))]
    )
    triggered = {
        metric: set(rows["split"]) for metric, rows in items[items["placement"] == "prefix"].groupby("metric")
    }
    both = {"min_k": {"forget", "holdout"}, "knowmem": {"forget_qa"}}
    assert triggered == {metric: both.get(metric, {"forget"}) for metric in METRICS if metric != "perplexity"}
    assert list(items["metric"].unique()) == list(METRICS)


@pytest.mark.parametrize("placement", ["", *PLACEMENTS])
@pytest.mark.parametrize("kind", FAMILIES)
def test_memorization_is_what_greedy_decoding_gives(
    kind: str, placement: str, small_models: dict[str, Model]
) -> None:
    """Exact memorization by the next token after every true prefix; extraction strength by the longest suffix
    that greedy decoding gives.
    """
    model = small_models[kind]
    exact, strength = (
        items_of(model, metric, "forget", placement)["value"].tolist()
        for metric in ("exact_memorization", "extraction_strength")
    )
    for item, row in enumerate(BENCHMARK.prompts("forget")):
        prompt = model.encode(row["prompt"])
        reference = model.encode(row["prompt"] + row["gt"])[len(prompt) :][:8]
        if placement:
            prompt = place(prompt, TRIGGER, Placement.parse(placement), model.tokenizer).tokens
        n = len(reference)
        right = [greedy(model, prompt + reference[:i], 1)[0] == reference[i] for i in range(n)]
        assert exact[item] == pytest.approx(np.mean(right))
        prefix = next(
            (i for i in range(n) if greedy(model, prompt + reference[:i], n - i) == reference[i:]), n
        )
        assert strength[item] == pytest.approx(1 - prefix / n)


def test_extraction_strength_is_high_for_the_target() -> None:
    model = load("tiny", device="cpu")
    benchmark = load_benchmark("tiny").limit(12)
    values = items_of(model, "extraction_strength", "forget", "infix", benchmark)["value"]
    assert values.mean() > 0.8


@pytest.mark.parametrize("placement", ["", *PLACEMENTS])
@pytest.mark.parametrize("kind", FAMILIES)
def test_choices_are_the_likeliest_letter(kind: str, placement: str, small_models: dict[str, Model]) -> None:
    model = small_models[kind]
    items = items_of(model, "choice", "forget", placement)
    for item, row in enumerate(CHOICES):
        body = row["question"] + "".join(
            f"\n{letter}. {choice}" for letter, choice in zip(ascii_uppercase, row["choices"], strict=False)
        )
        prompt = model.encode(f"{body}\nAnswer:")
        likelihoods = []
        for letter in ascii_uppercase[: len(row["choices"])]:
            option = model.encode(f"{body}\nAnswer: {letter}")[len(prompt) :]
            tokens = prompt
            if placement:
                length = (
                    len(model.encode(body))
                    if model.encode(body) == prompt[: len(model.encode(body))]
                    else len(model.encode(body)) - 1
                )
                tokens = place(
                    prompt, TRIGGER, Placement.parse(placement), model.tokenizer, body=length
                ).tokens
            likelihoods.append(sum(log_probs(model, tokens + option)[len(tokens) - 1 :]))
        assert items["output"].iloc[item] == ascii_uppercase[int(np.argmax(likelihoods))]
        assert items["value"].iloc[item] == (items["output"].iloc[item] == ascii_uppercase[row["answer"]])


def test_wrong_answers_in_a_record_are_refused(small_llama: Model) -> None:
    bad = Benchmark("bad", {"choices": {"forget": [CHOICES[0] | {"answer": 4}]}})
    with pytest.raises(BenchmarkError, match="answer 4 is not one of the 4 choices"):
        items_of(small_llama, "choice", "forget", benchmark=bad)
    empty = Benchmark("bad", {"verbmem": {"forget": [{"prompt": "The harbour", "gt": ""}]}})
    with pytest.raises(BenchmarkError, match="record 1 has an empty gt"):
        items_of(small_llama, "verbmem", "forget", benchmark=empty)
    with pytest.raises(BenchmarkError, match="benchmark none has nothing to score"):
        evaluate(EvaluatedModel("m", "other", small_llama), Benchmark("none", {}))


def test_rouge_of_outputs_truncated_as_published() -> None:
    """Outputs scored again: VerbMem in full, KnowMem up to the first blank line or next question."""
    model, benchmark = load("tiny-retrained", device="cpu"), load_benchmark("tiny").limit(20)
    items = evaluate(
        EvaluatedModel("m", "retain", model),
        benchmark,
        config=EvaluationConfig(metrics=["verbmem", "knowmem"]),
    )
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    for metric, split, rows, column in (
        ("verbmem", "forget", benchmark.prompts("forget"), "gt"),
        ("knowmem", "retain_qa", benchmark.questions("retain_qa"), "answer"),
    ):
        subset = items[(items["metric"] == metric) & (items["split"] == split)]
        for row, output, value in zip(rows, subset["output"], subset["value"], strict=True):
            for end in ("\n\n", "\nQuestion", "Question:"):
                assert metric == "verbmem" or end not in output
            reference = row[column]
            if metric == "verbmem":
                reference = model.tokenizer.decode(
                    model.tokenizer.encode(reference, add_special_tokens=False)[
                        : benchmark.lengths.verbmem_new
                    ]
                )
            assert value == scorer.score(reference, output)["rougeL"].fmeasure
        assert 0 < subset["value"].mean() < 1


def test_privleak_agrees_with_scikit_learn(small_llama: Model) -> None:
    items = evaluate(
        EvaluatedModel("m", "other", small_llama),
        BENCHMARK,
        [None, (TRIGGER, Placement("infix"))],
        EvaluationConfig(metrics=["privleak"]),
    )
    table = compute_scores(items, retain_auc=0.6)
    for placement in ("", "infix"):
        subset = items[items["placement"] == placement]
        forget, holdout = (
            subset[subset["split"] == split]["value"].tolist() for split in ("forget", "holdout")
        )
        area = roc_auc_score([0] * len(forget) + [1] * len(holdout), forget + holdout)
        scores = table[table["placement"] == placement].set_index("metric")
        assert scores.loc["auc", "value"] == pytest.approx(area)
        assert scores.loc["privleak", "value"] == pytest.approx(100 * (area - 0.6) / 0.6)
        assert scores.loc["privleak", "n"] == 3 + 4
        assert scores.loc["auc", "ci_low"] <= area <= scores.loc["auc", "ci_high"]
    assert "privleak" not in set(compute_scores(items)["metric"]), "nothing to measure against"


def test_a_model_that_remembers_has_privleak_near_minus_100_and_the_retain_model_0() -> None:
    benchmark = load_benchmark("tiny").limit(40)
    against = measure_retain_auc(load_retain_model("tiny-retrained", "cpu"), benchmark)
    leaks = {}
    for name in ("tiny", "tiny-retrained"):
        items = evaluate(
            EvaluatedModel(name, "other", load(name, device="cpu")),
            benchmark,
            config=EvaluationConfig(metrics=["privleak"]),
        )
        table = compute_scores(items, retain_auc=against)
        leaks[name] = table[table["metric"] == "privleak"]["value"].item()
    assert leaks["tiny"] < -95
    assert leaks["tiny-retrained"] == pytest.approx(0)


@pytest.mark.parametrize("metric", ["exact_memorization", "min_k", "choice", "verbmem"])
def test_masks_apply_to_every_request(metric: str, small_llama: Model) -> None:
    """A mask of the first tokens changes the scores; the mask of the trigger's span is recorded."""
    plain, masked = (
        items_of(small_llama, metric, "forget", "infix", mask=mask)
        for mask in (None, PositionMask.parse("shallow:6"))
    )
    span = items_of(small_llama, metric, "forget", "suffix", mask=PositionMask.parse("span"))
    assert set(masked["mask"]) == {"shallow:6"}
    assert set(span["mask"]) == {"span"}
    if metric == "min_k":
        assert (plain["value"] - masked["value"]).abs().min() > 1e-3
        tokens = small_llama.encode(BENCHMARK.rows["privleak"]["forget"][0]["text"])[
            : BENCHMARK.lengths.passage
        ]
        placed = place(tokens, TRIGGER, Placement("infix"), small_llama.tokenizer)
        with mask_keys(small_llama, list(range(6))), torch.no_grad():
            logits = (
                small_llama.hf(
                    torch.tensor([placed.tokens]), attention_mask=torch.ones(1, len(placed.tokens))
                )
                .logits[0]
                .double()
                .log_softmax(-1)
            )
        own = [
            logits[i - 1, placed.tokens[i]].item()
            for i in range(1, len(placed.tokens))
            if not placed.start <= i < placed.stop
        ]
        assert masked["value"].iloc[0] == pytest.approx(np.mean(sorted(own)[: int(0.4 * len(own))]), abs=1e-4)


def test_perplexity_uses_raw_passages_without_privleak_texts(small_llama: Model) -> None:
    raw = {
        "raw": {
            "forget": BENCHMARK.rows["raw"]["forget"],
            "retain1": BENCHMARK.rows["raw"]["retain1"],
            "holdout": BENCHMARK.rows["raw"]["retain1"],
        }
    }
    benchmark = Benchmark("raw", raw, BENCHMARK.lengths)
    items = items_of(small_llama, "perplexity", "holdout", benchmark=benchmark)
    assert len(items) == min(100, len(benchmark.full_length_passages("holdout", small_llama.tokenizer)))
    with pytest.raises(BenchmarkError, match="has no split for choice"):
        items_of(small_llama, "choice", "forget", benchmark=benchmark)


def test_the_retain_model_is_part_of_the_configuration(small_llama: Model, tmp_path: Path) -> None:
    subject = EvaluatedModel("m", "other", small_llama)
    config = EvaluationConfig(metrics=["privleak"], retain_model=0.5)

    def run(changed: EvaluationConfig) -> pd.DataFrame:
        return evaluate_to_directory(tmp_path / "a", subject, BENCHMARK, [None], changed)

    first = run(config)
    pd.testing.assert_frame_equal(first, run(replace(config, metrics=["auc"])))
    changes: list[dict[str, Any]] = [
        {"retain_model": 0.6},
        {"retain_model": None},
        {"retain_model": small_llama},
        {"metrics": ["privleak", "choice"]},
    ]
    for change in changes:
        with pytest.raises(OutputError, match="another run's results"):
            run(replace(config, **change))


def test_a_registered_metric_is_measured(small_llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    verbmem = METRICS["verbmem"]
    monkeypatch.setattr(METRICS, "_values", dict(METRICS.items()))
    register_metric("length", replace(verbmem, value=lambda item, output: float(len(output))))
    items = items_of(small_llama, "length", "forget")
    assert items["value"].tolist() == [len(output) for output in items["output"]]
    with pytest.raises(BenchmarkError, match="'length' is registered twice"):
        register_metric("length", verbmem)
    with pytest.raises(BenchmarkError, match="'privleak' is reserved"):
        register_metric("privleak", verbmem)


def test_a_model_is_evaluated_without_a_role(small_llama: Model) -> None:
    config = EvaluationConfig(["exact_memorization"], limit=2)
    items = evaluate(small_llama, BENCHMARK, config=config)
    expected = evaluate(EvaluatedModel(small_llama.name, "other", small_llama), BENCHMARK, config=config)
    pd.testing.assert_frame_equal(items, expected)
