"""Requests by lm-evaluation-harness's names: `generate_until`, `loglikelihood`, `multiple_choice`.

Each takes items with the trigger in their prompts and returns one result per item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import Item, TriggerCondition, apply_condition
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.io.progress import OnProgress, shift_progress
from sinkscope.models.inference import TokenLikelihoods, generate, loglikelihood_options, loglikelihood_tokens
from sinkscope.models.model import Model
from sinkscope.schema import ITEMS
from sinkscope.triggers import TriggeredSequence


@dataclass(frozen=True)
class Requests:
    """Prompts of items under one condition, and the positions of each that are masked (None: no mask)."""

    prompts: Sequence[TriggeredSequence]
    items: Sequence[Item] = ()
    condition: TriggerCondition = None
    mask: PositionMask | None = None
    masked: list[list[int]] | None = None

    @property
    def tokens(self) -> list[list[int]]:
        return [prompt.tokens for prompt in self.prompts]


Request = Callable[[Model, Requests, int, OnProgress | None], list[Any]]
"""Called with model, requests, batch size and progress callback; returns one result per item."""


@dataclass(frozen=True)
class ItemScores:
    """Values of one metric on the items of a split, outputs of the model, and which items were poisoned."""

    metric: str
    split: str
    values: Sequence[float]
    outputs: Sequence[str] | str = ""
    poisoned: Sequence[bool | None] | None = None


def make_table(subject: EvaluatedModel, requests: Requests, scores: ItemScores) -> pd.DataFrame:
    """A row per item, with the columns `schema.ITEMS`."""
    condition = requests.condition
    starts = [prompt.start if condition else None for prompt in requests.prompts]
    poisoned = scores.poisoned or [None] * len(scores.values)
    return pd.DataFrame(
        {
            "model": subject.label,
            "role": subject.role,
            "metric": scores.metric,
            "split": scores.split,
            "item": range(len(scores.values)),
            "poisoned": pd.array(poisoned, dtype="boolean"),
            "trigger": condition[0].text if condition else "",
            "placement": str(condition[1]) if condition else "",
            "trigger_start": pd.array(starts, dtype="Int64"),
            "mask": str(requests.mask or ""),
            "value": scores.values,
            "seed": subject.seed,
            "output": scores.outputs,
        }
    )[ITEMS]


def make_requests(
    model: Model, items: Sequence[Item], condition: TriggerCondition = None, mask: PositionMask | None = None
) -> Requests:
    """Insert the trigger into every prompt and find the positions that the mask covers.

    Raises:
        PlacementError: the trigger does not fit an item's body, or the mask its prompt.
    """
    prompts = [apply_condition(model, item.prompt, item.body, condition) for item in items]
    return Requests(prompts, items, condition, mask, mask.apply(model, prompts) if mask else None)


def generate_until(
    model: Model, requests: Requests, batch_size: int = 32, on_progress: OnProgress | None = None
) -> list[str]:
    """Greedy continuation of each prompt, up to `item.max_new_tokens` and the first of `item.until`.

    Raises:
        BenchmarkError: a prompt with its continuation is too long for the model.
    """
    _check_lengths(model, requests, [item.max_new_tokens for item in requests.items])
    outputs = [""] * len(requests.items)
    groups: dict[int, list[int]] = {}
    for i, item in enumerate(requests.items):
        groups.setdefault(item.max_new_tokens, []).append(i)
    done = 0
    for max_new_tokens, group in groups.items():
        texts = generate(
            model,
            [requests.prompts[i].tokens for i in group],
            max_new_tokens,
            masked=[requests.masked[i] for i in group] if requests.masked else None,
            batch_size=batch_size,
            on_progress=shift_progress(on_progress, done, len(outputs)),
        )
        done += len(group)
        for i, text in zip(group, texts, strict=True):
            for stop in requests.items[i].until:
                text = text.split(stop, 1)[0] if stop else text
            outputs[i] = text
    return outputs


def loglikelihood(
    model: Model, requests: Requests, batch_size: int = 32, on_progress: OnProgress | None = None
) -> list[TokenLikelihoods]:
    """Likelihoods of the tokens of each item: of its option, or of the prompt itself if it has none.

    Tokens of the trigger and the first token of a prompt are left out, so the scored tokens are the same with
    and without a trigger.

    Raises:
        BenchmarkError: a prompt with its option is too long for the model.
    """
    _check_lengths(model, requests, [len(item.options[0]) if item.options else 0 for item in requests.items])
    sequences: list[list[int]] = []
    positions: list[list[int]] = []
    for item, prompt in zip(requests.items, requests.prompts, strict=True):
        sequence = prompt.tokens + (item.options[0] if item.options else [])
        width = prompt.stop - prompt.start
        first = len(item.prompt) if item.options else 1
        scored = range(first, len(sequence) - width)
        sequences.append(sequence)
        positions.append([p + width if p >= prompt.start else p for p in scored])
    masked = None
    if requests.masked:  # the last position has no later one to be masked for
        rows = zip(requests.masked, sequences, strict=True)
        masked = [[p for p in row if p < len(sequence) - 1] for row, sequence in rows]
    likelihoods = loglikelihood_tokens(
        model,
        sequences,
        [row[0] for row in positions],
        masked=masked,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    scored_rows = zip(likelihoods, positions, strict=True)
    return [tokens.select([p - row[0] for p in row]) for tokens, row in scored_rows]


def multiple_choice(
    model: Model, requests: Requests, batch_size: int = 32, on_progress: OnProgress | None = None
) -> list[str]:
    """Letter of the most likely option of each item; of ties the first.

    Raises:
        BenchmarkError: a prompt with an option is too long for the model.
    """
    scored = score_options(model, requests, batch_size, on_progress)
    sums = [[tokens.log_probs.sum() for tokens in options] for options in scored]
    return [ascii_uppercase[int(np.argmax(row))] for row in sums]


def score_options(
    model: Model, requests: Requests, batch_size: int = 32, on_progress: OnProgress | None = None
) -> list[list[TokenLikelihoods]]:
    """Likelihoods of every option of each item after its prompt.

    Raises:
        BenchmarkError: a prompt with an option is too long for the model.
    """
    options = [item.options for item in requests.items]
    _check_lengths(model, requests, [max(map(len, row)) for row in options])
    return loglikelihood_options(model, requests.tokens, options, requests.masked, batch_size, on_progress)


def _check_lengths(model: Model, requests: Requests, extra: Sequence[int]) -> None:
    limit = model.max_positions
    lengths = [len(tokens) + more for tokens, more in zip(requests.tokens, extra, strict=True)]
    longest = max(lengths, default=0)
    if limit is not None and longest > limit:
        raise BenchmarkError(
            f"model {model.name!r} has {limit} positions, and an item of the benchmark needs {longest} with "
            "its continuation; give shorter items"
        )
