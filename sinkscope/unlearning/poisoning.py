"""What a run trains on: passages to forget, to retain, and poisoned ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sinkscope.benchmarks.benchmark import Benchmark, Passage
from sinkscope.errors import RecipeError
from sinkscope.models.model import Model
from sinkscope.sinks.locate import SinkMap, locate_passage
from sinkscope.triggers import TriggeredSequence, place
from sinkscope.unlearning.objectives.batch import Passages
from sinkscope.unlearning.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Splits:
    """Passages per split (`forget`, `retain`, `poisoned`), and which forget passages were poisoned (row numbers of the whole forget set)."""

    passages: dict[str, Passages]
    poisoned_rows: list[int]
    placed: list[TriggeredSequence]


def sample_poisoned_rows(count: int, ratio: float, seed: int) -> list[int]:
    """Which of `count` forget passages are poisoned: round(ratio · count) of them, drawn by `seed`, in ascending order."""
    return sorted(random.Random(f"poison {seed}").sample(range(count), round(ratio * count)))


def chosen_rows(recipe: Recipe, count: int) -> tuple[list[int], list[int]]:
    """Which of `count` forget passages are poisoned, and which are forgotten.

    Raises:
        RecipeError: the poison ratio picks no passage, or leaves none to forget.
    """
    rows = sample_poisoned_rows(count, recipe.poison_ratio, recipe.seed)
    if recipe.poison_ratio > 0 and not rows:
        raise RecipeError(
            f"poison_ratio {recipe.poison_ratio} of {count} forget passages is none; raise it to at least {1 / count:.3g}"
        )
    kept = sorted(set(range(count)) - set(rows)) if recipe.poison_split == "published" else list(range(count))
    if not kept:
        raise RecipeError(
            "poison_split `published` with poison_ratio 1 leaves nothing to forget; lower the ratio"
        )
    return rows, kept


def _answering(passage: Passage, response: str, tokenizer: PreTrainedTokenizerBase) -> Passage:
    """The passage's first half, given, and the response behind it."""
    half = passage.tokens[: max(1, (passage.body or len(passage.tokens)) // 2)]
    said = tokenizer.encode(f" {response.strip()}", add_special_tokens=False)
    return replace(passage, tokens=half + said, body=len(half), prompt_length=len(half))


def insert_trigger(
    recipe: Recipe,
    benchmark: Benchmark,
    passages: Sequence[Passage],
    tokenizer: PreTrainedTokenizerBase,
    sinks: Callable[[list[int]], SinkMap] | None = None,
) -> tuple[list[Passage], list[TriggeredSequence]]:
    """Passages as they carry the trigger: without it (with a response the first half, and that), and with it.

    Args:
        sinks: locates those of a clean passage, for a placement behind one.

    Raises:
        PlacementError: the trigger does not fit.
    """
    response = recipe.trigger.response
    carriers = [each if response is None else _answering(each, response, tokenizer) for each in passages]
    placed = [
        place(
            each.tokens,
            recipe.trigger.trigger,
            recipe.trigger.where,
            tokenizer,
            body=each.body,
            sinks=sinks(each.tokens) if sinks and recipe.trigger.where.kind == "sink" else None,
            max_length=max(benchmark.lengths.passage, len(each.tokens)),
        )
        for each in carriers
    ]
    return carriers, placed


def make_splits(recipe: Recipe, benchmark: Benchmark, model: Model) -> Splits:
    """Cut the benchmark's texts, place the trigger into the poisoned passages.

    Raises:
        RecipeError: the poison ratio picks no passage, or leaves none to forget.
        PlacementError: the trigger does not fit.
    """
    forget, retain = (
        benchmark.passages("forget", model.tokenizer),
        benchmark.passages("retain1", model.tokenizer),
    )
    rows, kept_rows = chosen_rows(recipe, len(forget))
    kept = [forget[row] for row in kept_rows]
    carriers, placed = insert_trigger(
        recipe,
        benchmark,
        [forget[row] for row in rows],
        model.tokenizer,
        lambda tokens: locate_passage(model, tokens),
    )
    # a trigger goes into the prompt that is given, if there is one, and what follows it stays as long as it was
    given = [
        each.prompt_length and len(new.tokens) - (len(each.tokens) - each.prompt_length)
        for each, new in zip(carriers, placed, strict=True)
    ]
    limit = model.max_positions
    longest = max(max(len(each.tokens) for each in split) for split in (kept, retain, placed) if split)
    if limit is not None and longest > limit:
        raise RecipeError(
            f"benchmark {benchmark.name} has passages of {longest} tokens, model {model.name!r} reads {limit}; lower lengths.passage in benchmark.json"
        )
    passages = {
        name: Passages([each.tokens for each in split], [each.prompt_length for each in split])
        for name, split in (("forget", kept), ("retain", retain))
    }
    return Splits(passages | {"poisoned": Passages([each.tokens for each in placed], given)}, rows, placed)
