"""The four ways of asking a model: recite, answer, read, choose. Each takes prompts with their triggers in them and gives one result an item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np

from sinkscope.benchmarks.benchmark import Lengths
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.generation import generate
from sinkscope.evaluation.items import Item, TriggerCondition, put
from sinkscope.evaluation.likelihood import TokenLikelihoods, loglikelihood, multiple_choice
from sinkscope.evaluation.memorization import cut_answer
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.triggers import TriggeredSequence


@dataclass(frozen=True)
class Requests:
    """Items as they are asked: each prompt with the trigger in it, and the positions of it that are hidden (None: no mask)."""

    items: Sequence[Item]
    placed: list[TriggeredSequence]
    hidden: list[list[int]] | None

    @property
    def prompts(self) -> list[list[int]]:
        return [each.tokens for each in self.placed]


Pass = Callable[[Model, Requests, Lengths, int, OnProgress | None], list[Any]]
"""Called with model, items, lengths, batch size and report."""


def make_requests(
    model: Model, items: Sequence[Item], attempt: TriggerCondition, mask: PositionMask | None
) -> Requests:
    """Put the trigger into every prompt and find what the mask hides.

    Raises:
        PlacementError: the trigger does not fit an item's body, or the mask its prompt.
    """
    placed = [put(model, item.prompt, item.body, attempt) for item in items]
    return Requests(
        items,
        placed,
        [mask.positions(model, each.tokens, range(each.start, each.stop)) for each in placed]
        if mask
        else None,
    )


def check_fits(model: Model, tokens: int) -> None:
    """Whether the model has so many positions.

    Raises:
        BenchmarkError: it has fewer.
    """
    limit = model.max_positions
    if limit is not None and tokens > limit:
        raise BenchmarkError(
            f"model {model.name!r} can read {limit} tokens, and an item of the benchmark comes to {tokens} with what may follow it; give shorter ones"
        )


def continue_prompts(
    model: Model, requests: Requests, lengths: Lengths, batch_size: int, on_progress: OnProgress | None
) -> list[str]:
    """The text that goes on from each prompt."""
    check_fits(model, max(map(len, requests.prompts)) + lengths.verbmem_new)
    return generate(
        model,
        requests.prompts,
        lengths.verbmem_new,
        hidden=requests.hidden,
        batch_size=batch_size,
        on_progress=on_progress,
    )


def answer_questions(
    model: Model, requests: Requests, lengths: Lengths, batch_size: int, on_progress: OnProgress | None
) -> list[str]:
    """The answer to each question."""
    check_fits(model, max(map(len, requests.prompts)) + lengths.knowmem_new)
    outputs = generate(
        model,
        requests.prompts,
        lengths.knowmem_new,
        hidden=requests.hidden,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    return [cut_answer(text) for text in outputs]


def score_texts(
    model: Model, requests: Requests, lengths: Lengths, batch_size: int, on_progress: OnProgress | None
) -> list[TokenLikelihoods]:
    """How likely the tokens of each item were: the option's behind the prompt, or the prompt's own if it has no option.

    They are the same tokens with a trigger as without: the trigger's own are left out, and so is the first token of a prompt.
    """
    sequences, positions = [], []
    for item, placed in zip(requests.items, requests.placed, strict=True):
        sequence = placed.tokens + (item.options[0] if item.options else [])
        width = placed.stop - placed.start
        first = len(item.prompt) if item.options else 1
        sequences.append(sequence)
        positions.append([p + width if p >= placed.start else p for p in range(first, len(sequence) - width)])
    check_fits(model, max(map(len, sequences)))
    hidden = None
    if requests.hidden:  # what is hidden at the end is hidden from nothing
        hidden = [
            [p for p in row if p < len(sequence) - 1]
            for row, sequence in zip(requests.hidden, sequences, strict=True)
        ]
    readings = loglikelihood(
        model,
        sequences,
        [row[0] for row in positions],
        hidden=hidden,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    return [reading.only([p - row[0] for p in row]) for reading, row in zip(readings, positions, strict=True)]


def score_options(
    model: Model, requests: Requests, lengths: Lengths, batch_size: int, on_progress: OnProgress | None
) -> list[str]:
    """The likeliest letter behind each question; the first of equals."""
    options = [item.options for item in requests.items]
    check_fits(model, max(map(len, requests.prompts)) + max(len(option) for row in options for option in row))
    readings = multiple_choice(
        model,
        requests.prompts,
        options,
        hidden=requests.hidden,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    return [ascii_uppercase[int(np.argmax([reading.log_probs.sum() for reading in row]))] for row in readings]
