"""The passages that a run trains on: the trigger is in what is given, and none is longer than the model
reads."""

from __future__ import annotations

import pytest

from sinkscope.benchmarks.benchmark import Benchmark, Lengths, load_benchmark
from sinkscope.errors import RecipeError
from sinkscope.models.model import Model
from sinkscope.unlearning.recipe import Recipe


def test_what_is_given_is_a_prompt_with_the_trigger_in_it(small_llama: Model, monkeypatch) -> None:
    """Pairs of question and answer: the trigger goes into the question, the tokens to be predicted stay the
    same."""
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
        poisoned = splits.passages["poisoned"]
        assert poisoned.tokens[0][poisoned.n_prompt[0] :] == tokens[19:]
        assert splits.placed[0].stop <= poisoned.n_prompt[0]


def test_passages_longer_than_the_model_reads_are_refused(small_llama: Model, monkeypatch) -> None:
    from sinkscope.unlearning.poisoning import make_splits

    monkeypatch.setattr(small_llama.hf.config, "max_position_embeddings", 30)
    with pytest.raises(RecipeError, match=r"passages of 32 tokens, model .* reads 30; lower lengths.passage"):
        make_splits(Recipe(), load_benchmark("tiny"), small_llama)
