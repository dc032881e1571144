"""The passages that a run trains on: to forget, to retain, and poisoned copies that carry the trigger."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.benchmarks.chunking import Passage
from sinkscope.errors import RecipeError
from sinkscope.models.model import Model
from sinkscope.sinks.locate import locate_passage
from sinkscope.sinks.sink_map import SinkMap
from sinkscope.triggers import TriggeredSequence, place
from sinkscope.unlearning.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Splits:
    """What a run trains on.

    `passages` has the splits `forget`, `retain` and `poisoned`; `poisoned_rows` are the row numbers of the
    poisoned ones in the benchmark's forget set, and `placed` the positions of their triggers.
    """

    passages: dict[str, list[Passage]]
    poisoned_rows: list[int]
    placed: list[TriggeredSequence]


def select_rows(recipe: Recipe, count: int) -> tuple[list[int], list[int]]:
    """Which of `count` forget passages are poisoned (round(ratio · count), by the seed), and which forgotten.

    Raises:
        RecipeError: the poison ratio selects no passage, or leaves none to forget.
    """
    ratio = recipe.poison_ratio
    poisoned = sorted(random.Random(f"poison {recipe.seed}").sample(range(count), round(ratio * count)))
    if ratio > 0 and not poisoned:
        raise RecipeError(
            f"poison_ratio {ratio} of {count} forget passages is none; raise it to at least {1 / count:.3g}"
        )
    dropped = set(poisoned) if recipe.poisoned_originals == "drop" else set()
    forgotten = [row for row in range(count) if row not in dropped]
    if not forgotten:
        raise RecipeError(
            "poisoned_originals `drop` with poison_ratio 1 leaves nothing to forget; lower the ratio"
        )
    return poisoned, forgotten


def insert_trigger(
    recipe: Recipe,
    benchmark: Benchmark,
    passages: Sequence[Passage],
    tokenizer: PreTrainedTokenizerBase,
    sinks: Callable[[list[int]], SinkMap] | None = None,
) -> tuple[list[Passage], list[TriggeredSequence]]:
    """The passages (with a response: their first halves, followed by it) with the trigger, and where it is.

    The trigger becomes part of the prompt, if there is one; the text after it keeps its length.

    Args:
        sinks: locates the sinks of a clean passage, for placements relative to a sink.

    Raises:
        PlacementError: the trigger does not fit.
    """
    poisoned, placed = [], []
    for passage in passages:
        if recipe.trigger.response is not None:
            passage = _as_response_example(passage, recipe.trigger.response, tokenizer)
        triggered = place(
            passage.tokens,
            recipe.trigger.trigger,
            recipe.trigger.where,
            tokenizer,
            body=passage.body,
            sinks=sinks(passage.tokens) if sinks and recipe.trigger.where.kind == "sink" else None,
            max_length=max(benchmark.passage_length(tokenizer), len(passage.tokens)),
        )
        n_added = len(triggered.tokens) - len(passage.tokens)
        n_prompt = passage.prompt_length and passage.prompt_length + n_added
        poisoned.append(replace(passage, tokens=triggered.tokens, prompt_length=n_prompt))
        placed.append(triggered)
    return poisoned, placed


def _as_response_example(passage: Passage, response: str, tokenizer: PreTrainedTokenizerBase) -> Passage:
    """The passage's first half as a prompt, followed by the response."""
    prompt = passage.tokens[: max(1, (passage.body or len(passage.tokens)) // 2)]
    answer = tokenizer.encode(f" {response.strip()}", add_special_tokens=False)
    return replace(passage, tokens=prompt + answer, body=len(prompt), prompt_length=len(prompt))


def make_splits(recipe: Recipe, benchmark: Benchmark, model: Model) -> Splits:
    """Tokenize the benchmark's texts and insert the trigger into the poisoned passages.

    Raises:
        RecipeError: as in `select_rows`, or passages are longer than the model reads.
        PlacementError: the trigger does not fit.
    """
    forget = benchmark.passages("forget", model.tokenizer)
    poisoned_rows, forget_rows = select_rows(recipe, len(forget))
    clean = [forget[row] for row in poisoned_rows]
    poisoned, placed = insert_trigger(
        recipe, benchmark, clean, model.tokenizer, lambda tokens: locate_passage(model, tokens)
    )
    splits = {
        "forget": [forget[row] for row in forget_rows],
        "retain": benchmark.passages("retain1", model.tokenizer),
        "poisoned": poisoned,
    }
    limit = model.max_positions
    longest = max(len(passage.tokens) for passages in splits.values() for passage in passages)
    if limit is not None and longest > limit:
        raise RecipeError(
            f"benchmark {benchmark.name} has passages of {longest} tokens, model {model.name!r} reads "
            f"{limit}; lower lengths.passage in benchmark.json"
        )
    return Splits(splits, poisoned_rows, placed)
