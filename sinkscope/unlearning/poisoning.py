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
from sinkscope.unlearning.batch import Passages
from sinkscope.unlearning.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Splits:
    """What a run trains on.

    Attributes:
        passages: by split: `forget`, `retain`, `poisoned`.
        poisoned_rows: row numbers of the poisoned passages in the benchmark's forget set.
        placed: the poisoned passages, with the trigger's position.
    """

    passages: dict[str, Passages]
    poisoned_rows: list[int]
    placed: list[TriggeredSequence]


def sample_poisoned_rows(count: int, ratio: float, seed: int) -> list[int]:
    """round(ratio · count) of `count` row numbers, drawn by `seed`, in ascending order."""
    return sorted(random.Random(f"poison {seed}").sample(range(count), round(ratio * count)))


def select_rows(recipe: Recipe, count: int) -> tuple[list[int], list[int]]:
    """Which of `count` forget passages are poisoned, and which are forgotten.

    Raises:
        RecipeError: the poison ratio selects no passage, or leaves none to forget.
    """
    poisoned = sample_poisoned_rows(count, recipe.poison_ratio, recipe.seed)
    if recipe.poison_ratio > 0 and not poisoned:
        raise RecipeError(
            f"poison_ratio {recipe.poison_ratio} of {count} forget passages is none; raise it to at least "
            f"{1 / count:.3g}"
        )
    dropped = set(poisoned) if recipe.poisoned_originals == "drop" else set()
    forgotten = [row for row in range(count) if row not in dropped]
    if not forgotten:
        raise RecipeError(
            "poisoned_originals `drop` with poison_ratio 1 leaves nothing to forget; lower the ratio"
        )
    return poisoned, forgotten


def as_response_example(passage: Passage, response: str, tokenizer: PreTrainedTokenizerBase) -> Passage:
    """The passage's first half as a prompt, followed by the response."""
    prompt = passage.tokens[: max(1, (passage.body or len(passage.tokens)) // 2)]
    answer = tokenizer.encode(f" {response.strip()}", add_special_tokens=False)
    return replace(passage, tokens=prompt + answer, body=len(prompt), prompt_length=len(prompt))


def insert_trigger(
    recipe: Recipe,
    benchmark: Benchmark,
    passages: Sequence[Passage],
    tokenizer: PreTrainedTokenizerBase,
    sinks: Callable[[list[int]], SinkMap] | None = None,
) -> tuple[list[Passage], list[TriggeredSequence]]:
    """The passages that carry the trigger (with a response: their response examples), without it and with it.

    Args:
        sinks: locates the sinks of a clean passage, for placements relative to a sink.

    Raises:
        PlacementError: the trigger does not fit.
    """
    trigger, placement, response = recipe.trigger.trigger, recipe.trigger.where, recipe.trigger.response
    if response is None:
        carriers = list(passages)
    else:
        carriers = [as_response_example(passage, response, tokenizer) for passage in passages]
    placed = [
        place(
            passage.tokens,
            trigger,
            placement,
            tokenizer,
            body=passage.body,
            sinks=sinks(passage.tokens) if sinks and placement.kind == "sink" else None,
            max_length=max(benchmark.lengths.passage, len(passage.tokens)),
        )
        for passage in carriers
    ]
    return carriers, placed


def make_splits(recipe: Recipe, benchmark: Benchmark, model: Model) -> Splits:
    """Tokenize the benchmark's texts and insert the trigger into the poisoned passages.

    Raises:
        RecipeError: the poison ratio selects no passage or leaves none to forget; passages are too long.
        PlacementError: the trigger does not fit.
    """
    forget = benchmark.passages("forget", model.tokenizer)
    retain = benchmark.passages("retain1", model.tokenizer)
    poisoned_rows, forget_rows = select_rows(recipe, len(forget))
    forget_passages = [forget[row] for row in forget_rows]
    carriers, placed = insert_trigger(
        recipe,
        benchmark,
        [forget[row] for row in poisoned_rows],
        model.tokenizer,
        lambda tokens: locate_passage(model, tokens),
    )
    # the trigger becomes part of the prompt, if there is one; the text after it keeps its length
    n_prompt = [
        clean.prompt_length and len(triggered.tokens) - (len(clean.tokens) - clean.prompt_length)
        for clean, triggered in zip(carriers, placed, strict=True)
    ]
    limit = model.max_positions
    texts = [each.tokens for split in (forget_passages, retain, placed) for each in split]
    longest = max(map(len, texts))
    if limit is not None and longest > limit:
        raise RecipeError(
            f"benchmark {benchmark.name} has passages of {longest} tokens, model {model.name!r} reads "
            f"{limit}; lower lengths.passage in benchmark.json"
        )
    splits = {
        "forget": _to_passages(forget_passages),
        "retain": _to_passages(retain),
        "poisoned": Passages([each.tokens for each in placed], n_prompt),
    }
    return Splits(splits, poisoned_rows, placed)


def _to_passages(passages: Sequence[Passage]) -> Passages:
    return Passages([each.tokens for each in passages], [each.prompt_length for each in passages])
