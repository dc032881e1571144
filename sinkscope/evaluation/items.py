"""What is asked of a model: prompts, the part of them that placement counts in, what may follow them, and triggers put into them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sinkscope.models.model import Model
from sinkscope.sinks.locate import locate_passage
from sinkscope.triggers import Placement, Trigger, TriggeredSequence, place

TriggerCondition = tuple[Trigger, Placement] | None
"""A trigger and where it is tried; None is clean."""


@dataclass(frozen=True)
class Item:
    """One thing to score.

    `prompt`: token ids, BOS first; `body`: how many of them placement counts in; `reference`: the right text; `source`: the benchmark's own text of the
    item; `options`: what may follow the prompt, as token ids: the reference of a text to recite, each choice of a question, nothing else.
    """

    prompt: list[int]
    body: int
    reference: str
    source: str
    options: list[list[int]] = field(default_factory=list)


def ask(model: Model, body: str, tail: str) -> tuple[list[int], int]:
    """Token ids of `body + tail`, BOS first, and how many of them lie wholly in the body; a token across the border stays out."""
    encoded = model.tokenizer(
        body + tail, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    prompt = model.with_bos(encoded["input_ids"])
    return prompt, len(prompt) - sum(stop > len(body) for _, stop in encoded["offset_mapping"])


def following(model: Model, before: str, text: str) -> list[int]:
    """Token ids of `text` as it stands behind `before`; as it stands alone where a token would join the two."""
    start = model.tokenizer.encode(before, add_special_tokens=False, verbose=False)
    whole = model.tokenizer.encode(before + text, add_special_tokens=False, verbose=False)
    return (
        whole[len(start) :]
        if whole[: len(start)] == start
        else model.tokenizer.encode(text, add_special_tokens=False, verbose=False)
    )


def put(model: Model, prompt: list[int], body: int, attempt: TriggerCondition) -> TriggeredSequence:
    """The prompt as it is asked; a clean one has an empty span.

    Raises:
        PlacementError: the trigger does not fit the body.
    """
    if attempt is None:
        return TriggeredSequence(prompt, 0, 0)
    trigger, placement = attempt
    sinks = locate_passage(model, prompt) if placement.kind == "sink" else None
    return place(prompt, trigger, placement, model.tokenizer, body=body, sinks=sinks)
