"""Training passages: triggers in prompts, and the limit of the model's positions."""

from __future__ import annotations

import pytest

from sinkscope.benchmarks.benchmark import Benchmark, Lengths, load_benchmark
from sinkscope.errors import RecipeError
from sinkscope.models.model import Model
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
