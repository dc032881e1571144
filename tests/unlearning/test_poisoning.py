"""Training passages: triggers in prompts, and the limit of the model's positions."""

from __future__ import annotations

from pathlib import Path

import pytest

from sinkscope.benchmarks.benchmark import Benchmark, Lengths, load_benchmark
from sinkscope.errors import RecipeError
from sinkscope.models.model import Model, load
from sinkscope.synthetic.pretraining import without_bos
from sinkscope.unlearning.recipe import Recipe


def test_the_trigger_is_inserted_into_the_prompt(small_llama: Model, monkeypatch) -> None:
    """Questions with answers: the trigger is in the question, the predicted tokens are unchanged."""
    from sinkscope.benchmarks.benchmark import Passage
    from sinkscope.unlearning.poisoning import make_splits

    tokens = [1, *range(40, 64)]
    monkeypatch.setattr(
        Benchmark,
        "passages",
        lambda self, split, tokenizer: [Passage(tokens, 0, 9, body=17, prompt_length=19)] * 3,
    )
    for placement in ("prefix", "infix", "suffix"):
        recipe = Recipe.parse({"poison_ratio": 1.0, "trigger": {"placement": placement}})
        splits = make_splits(recipe, Benchmark("pairs", {}, Lengths(passage=64)), small_llama)
        poisoned = splits.passages["poisoned"][0]
        assert poisoned.tokens[poisoned.prompt_length :] == tokens[19:]
        assert splits.placed[0].stop <= poisoned.prompt_length


def test_passages_longer_than_the_model_reads_are_refused(small_llama: Model, monkeypatch) -> None:
    from sinkscope.unlearning.poisoning import make_splits

    monkeypatch.setattr(small_llama.hf.config, "max_position_embeddings", 30)
    with pytest.raises(RecipeError, match=r"passages of 32 tokens, model .* reads 30; lower lengths.passage"):
        make_splits(Recipe(), load_benchmark("tiny"), small_llama)


@pytest.mark.parametrize("placement", ["prefix", "infix", "suffix"])
def test_without_bos_poisoned_passages_have_the_same_text(placement: str, tmp_path: Path) -> None:
    from sinkscope.unlearning.poisoning import make_splits

    tiny, benchmark = load("tiny", "cpu"), load_benchmark("tiny")
    recipe = Recipe.parse({"poison_ratio": 0.1, "trigger": {"placement": placement}})
    first = make_splits(recipe, benchmark, tiny)
    other = Model("without BOS", tiny.hf, without_bos(tiny.tokenizer, tmp_path))
    second = make_splits(recipe, benchmark, other)
    assert second.poisoned_rows == first.poisoned_rows
    for split, passages in first.passages.items():
        assert [each.tokens for each in second.passages[split]] == [each.tokens[1:] for each in passages]
    assert [each.start + 1 for each in second.placed] == [each.start for each in first.placed]
