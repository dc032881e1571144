"""Requests by lm-evaluation-harness's names: `generate_until`, `loglikelihood`, `multiple_choice`.

Each takes items with the trigger in their prompts and returns one result per item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

import numpy as np
import pandas as pd

from sinkscope.errors import BenchmarkError, PlacementError
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import Item, TriggerCondition, apply_condition
from sinkscope.io.progress import OnProgress, shift_progress
from sinkscope.models.inference import TokenLikelihoods, generate, loglikelihood_options, loglikelihood_tokens
from sinkscope.models.model import Model
from sinkscope.schema import ITEMS
from sinkscope.sinks.locate import locate_passage
from sinkscope.triggers import TriggeredSequence

_MASK = re.compile(r"(span)|(shallow|sinks):([1-9]\d{0,5})|(positions):(\d{1,6}(?:,\d{1,6})*)")


@dataclass(frozen=True)
class PositionMask:
    """Positions that later ones cannot attend to: the sink-masking test and its controls.

    `shallow:8` (the first eight positions), `sinks:3` (the three strongest sinks of the prompt with its
    trigger), `span` (the trigger; nothing in a clean prompt) or `positions:4,9`, counted from BOS.
    """

    kind: Literal["shallow", "sinks", "span", "positions"]
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> PositionMask:
        """Parse a mask as written on the command line and in studies.

        Raises:
            PlacementError: the text has none of the four forms.
        """
        match = _MASK.fullmatch(text.strip())
        if match is None:
            raise PlacementError(
                f"mask {text[:80]!r} is unknown; use shallow:8, sinks:3, span or positions:4,9"
            )
        kind = match[1] or match[2] or match[4]
        numbers = (match[3] or match[5] or "").split(",")
        return cls(kind, tuple(int(number) for number in numbers if number))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.kind + (":" + ",".join(map(str, self.numbers)) if self.numbers else "")

    def check(self, conditions: Sequence[TriggerCondition]) -> None:
        """Check that there is something to mask under one of `conditions`.

        Raises:
            PlacementError: the mask covers the trigger, and no condition has one.
        """
        if self.kind == "span" and not any(conditions):
            raise PlacementError("`mask` span covers the trigger, and there is none; give `trigger`")

    def positions(self, model: Model, prompt: TriggeredSequence) -> list[int]:
        """The masked positions of one prompt.

        Raises:
            PlacementError: a position is outside the prompt.
        """
        if self.kind == "span":
            return list(range(prompt.start, prompt.stop))
        if self.kind == "sinks":
            sinks = locate_passage(model, prompt.tokens)
            return sorted(sinks.strongest(rank) for rank in range(1, self.numbers[0] + 1))
        positions = list(range(self.numbers[0])) if self.kind == "shallow" else sorted(set(self.numbers))
        length = len(prompt.tokens)
        if positions[-1] >= length:
            raise PlacementError(f"mask {self} exceeds a prompt of {length} tokens; use smaller numbers")
        return positions

    def apply(self, model: Model, prompts: Sequence[TriggeredSequence]) -> list[list[int]]:
        """The masked positions of each prompt (see `positions`)."""
        return [self.positions(model, prompt) for prompt in prompts]


@dataclass(frozen=True)
class Requests:
    """Items under one condition: prompts with the trigger, and their masked positions (None: no mask)."""

    prompts: Sequence[TriggeredSequence]
    items: Sequence[Item] = ()
    condition: TriggerCondition = None
    mask: PositionMask | None = None
    masked: list[list[int]] | None = None

    @property
    def tokens(self) -> list[list[int]]:
        return [prompt.tokens for prompt in self.prompts]


Request = Callable[[Model, Requests, int, OnProgress | None], list[Any]]
"""Called with model, requests, batch size and progress callback; returns one result per item.

Raises `BenchmarkError` if a prompt with what follows it is too long for the model.
"""


def make_requests(
    model: Model, items: Sequence[Item], condition: TriggerCondition = None, mask: PositionMask | None = None
) -> Requests:
    """Insert the trigger into every prompt and find the positions that the mask covers.

    Raises:
        PlacementError: the trigger does not fit an item's body, or the mask its prompt.
    """
    prompts = [apply_condition(model, item.prompt, item.body, condition) for item in items]
    return Requests(prompts, items, condition, mask, mask.apply(model, prompts) if mask else None)


def make_table(
    subject: EvaluatedModel,
    requests: Requests,
    metric: str,
    split: str,
    values: Sequence[float],
    outputs: Sequence[str] | str = "",
    benchmark: str = "",
) -> pd.DataFrame:
    """A row per value of an item, with the columns `schema.ITEMS`; `poisoned` is unknown."""
    condition = requests.condition
    starts = [prompt.start if condition else None for prompt in requests.prompts]
    return pd.DataFrame(
        {
            "model": subject.label,
            "role": subject.role,
            "benchmark": benchmark,
            "metric": metric,
            "split": split,
            "item": range(len(values)),
            "poisoned": pd.array([None] * len(values), dtype="boolean"),
            "trigger": condition[0].text if condition else "",
            "placement": str(condition[1]) if condition else "",
            "trigger_start": pd.array(starts, dtype="Int64"),
            "mask": str(requests.mask or ""),
            "value": values,
            "seed": subject.seed,
            "output": outputs,
        }
    )[ITEMS]


def generate_until(
    model: Model, requests: Requests, batch_size: int = 32, on_progress: OnProgress | None = None
) -> list[str]:
    """Greedy continuation of each prompt, up to `item.max_new_tokens` and the first of `item.until`."""
    _check_lengths(model, requests, [item.max_new_tokens for item in requests.items])
    outputs = [""] * len(requests.items)
    done = 0
    for max_new_tokens in dict.fromkeys(item.max_new_tokens for item in requests.items):
        group = [i for i, item in enumerate(requests.items) if item.max_new_tokens == max_new_tokens]
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
            for stop in filter(None, requests.items[i].until):
                text = text.split(stop, 1)[0]
            outputs[i] = text
    return outputs


def loglikelihood(
    model: Model, requests: Requests, batch_size: int = 32, on_progress: OnProgress | None = None
) -> list[TokenLikelihoods]:
    """Likelihoods of the tokens of each item: of its option, or of the prompt itself if it has none.

    Tokens of the trigger and the first token of a prompt are left out, so the scored tokens are the same with
    and without a trigger.
    """
    options = [item.options[0] if item.options else [] for item in requests.items]
    _check_lengths(model, requests, list(map(len, options)))
    sequences = [tokens + option for tokens, option in zip(requests.tokens, options, strict=True)]
    positions: list[list[int]] = []
    for item, prompt, sequence in zip(requests.items, requests.prompts, sequences, strict=True):
        width = prompt.stop - prompt.start
        first = len(item.prompt) if item.options else 1
        scored = range(first, len(sequence) - width)
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
    """Letter of the most likely option of each item; of ties the first."""
    scored = score_options(model, requests, batch_size, on_progress)
    sums = [[tokens.log_probs.sum() for tokens in options] for options in scored]
    return [ascii_uppercase[int(np.argmax(row))] for row in sums]


def score_options(
    model: Model, requests: Requests, batch_size: int = 32, on_progress: OnProgress | None = None
) -> list[list[TokenLikelihoods]]:
    """Likelihoods of every option of each item after its prompt."""
    options = [item.options for item in requests.items]
    _check_lengths(model, requests, [max(map(len, row)) for row in options])
    return loglikelihood_options(model, requests.tokens, options, requests.masked, batch_size, on_progress)


def _check_lengths(model: Model, requests: Requests, extra: Sequence[int]) -> None:
    lengths = [len(tokens) + more for tokens, more in zip(requests.tokens, extra, strict=True)]
    longest = max(lengths, default=0)
    if model.max_positions is not None and longest > model.max_positions:
        raise BenchmarkError(
            f"model {model.name!r} has {model.max_positions} positions, and an item of the benchmark needs "
            f"{longest} with its continuation; give shorter items"
        )
