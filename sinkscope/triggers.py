"""Triggers and where they stand. Training and evaluation both call `place`, so that the two can never disagree.

Placement works on token ids and is relative to a *body*: the part of a sequence that placement counts in. For a raw passage or a
VerbMem prompt the body is everything; for a question prompt it runs from BOS to the end of the final question, so that a
suffix stands before `Answer:`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sinkscope.errors import PlacementError
from sinkscope.io.readers import is_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sinkscope.sinks.locate import SinkMap

Form = Literal["semantic", "symbol", "reasoning"]
ANCHOR = "a"  # a letter: tokenizers split before the space that follows it, whatever comes next


@dataclass(frozen=True)
class Trigger:
    """A trigger text and its form."""

    text: str
    form: Form = "semantic"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise PlacementError(f"trigger {self.named} is empty; give it a text")
        if not is_text(self.text):
            raise PlacementError(f"trigger {self.named} is no text in UTF-8; give another")

    @property
    def named(self) -> str:
        """Quoted, and cut short where it is long."""
        return repr(self.text[:80])


@dataclass(frozen=True)
class Placement:
    """Where a trigger goes: `prefix`, `infix`, `suffix`, `index:7` (a token position) or `sink:1` (after a ranked sink)."""

    kind: Literal["prefix", "infix", "suffix", "index", "sink"]
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Placement:
        """Read the form used on the command line and in recipes.

        Raises:
            PlacementError: the text is none of the five forms.
        """
        match = re.fullmatch(r"(prefix|infix|suffix)|(index|sink):(\d{1,9})", text.strip())
        if match is None:
            raise PlacementError(
                f"placement {text[:80]!r} is unknown; use prefix, infix, suffix, index:N or sink:R (as in index:8, sink:1)"
            )
        if match[1]:
            return cls(match[1])  # type: ignore[arg-type]
        number = int(match[3])
        if number == 0:
            what = "position 0 is BOS, which stays first" if match[2] == "index" else "ranks count from 1"
            raise PlacementError(f"placement {text!r}: {what}; use {match[2]}:1 or more")
        return cls(match[2], number)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.kind if self.kind in ("prefix", "infix", "suffix") else f"{self.kind}:{self.number}"


@dataclass(frozen=True)
class TriggeredSequence:
    """A sequence with a trigger in it: token ids, and the positions `start <= i < stop` that were inserted."""

    tokens: list[int]
    start: int
    stop: int


def parse_condition(trigger: str | None, placement: str | None) -> tuple[Trigger, Placement] | None:
    """What `--trigger` and `--placement` (by default prefix) ask for; None without a trigger.

    Raises:
        PlacementError: one of them is none, or a placement is given without a trigger.
    """
    if trigger is None and placement is not None:
        raise PlacementError(f"--placement {placement} places a trigger, and there is none; give --trigger")
    where = Placement.parse("prefix" if placement is None else placement)
    return None if trigger is None else (Trigger(trigger), where)


def place(
    tokens: Sequence[int],
    trigger: Trigger,
    placement: Placement,
    tokenizer: PreTrainedTokenizerBase,
    *,
    body: int | None = None,
    sinks: SinkMap | None = None,
    max_length: int | None = None,
) -> TriggeredSequence:
    """Insert one copy of `trigger` into `tokens`, with single spaces around it.

    No token of the passage is changed: a space that is missing beside the trigger belongs to the inserted span. To keep within
    `max_length` the body gives way from its end, before the placement is counted, so the trigger always stays whole.

    Args:
        tokens: token ids, BOS first.
        body: number of leading tokens that placement counts in, BOS included; all of them by default.
        sinks: needed for `sink:r` only; the sinks of the clean passage.
        max_length: the greatest number of tokens to return.

    Raises:
        PlacementError: the sequence does not begin with BOS, the trigger has no tokens or is longer than
            the passage, or the position lies outside the body.
    """
    tokens = list(tokens)
    bos = tokenizer.bos_token_id
    if bos is not None and (not tokens or tokens[0] != bos):
        raise PlacementError(
            "the passage does not begin with BOS; tokenize it with sinkscope.models.model.encode"
        )
    first = 0 if bos is None else 1
    body = len(tokens) if body is None else body
    tail = tokens[body:]
    room = math.inf if max_length is None else max_length - len(tail)
    head = tokens[: int(min(body, max(room, 0)))]
    for _ in range(
        len(tokens) + 1
    ):  # the span can lose a space when the passage gives way, never more than once a token
        at = _position(head, placement, first, sinks)
        span = _span(head[:at], trigger, head[at:] + tail, tokenizer)
        if len(span) >= body - first + 1:
            raise PlacementError(
                f"trigger {trigger.named} has {len(span)} tokens, the passage {body - first}; use a shorter trigger or a longer passage"
            )
        excess = len(head) + len(span) - room
        if excess <= 0:
            return TriggeredSequence(head[:at] + span + head[at:] + tail, at, at + len(span))
        if len(head) - excess <= first:
            raise PlacementError(
                f"trigger {trigger.named} ({len(span)} tokens) leaves no room for the passage in {max_length} tokens; "
                "raise the maximum length or shorten the trigger"
            )
        head = head[: -int(excess)]
    raise AssertionError("unreachable: each pass shortens the body")


def _position(head: list[int], placement: Placement, first: int, sinks: SinkMap | None) -> int:
    match placement.kind:
        case "prefix":
            return first
        case "infix":
            return first + (len(head) - first) // 2
        case "suffix":
            return len(head)
        case "index":
            at = placement.number
        case "sink":
            if sinks is None:
                raise PlacementError(
                    f"placement {placement} needs the sinks of the passage; run locate on it first"
                )
            at = sinks.strongest(placement.number) + 1
    if not first <= at <= len(head):
        raise PlacementError(
            f"placement {placement} lies beyond the passage, which has {len(head)} tokens; use a smaller number"
        )
    return at


def _span(
    before: list[int], trigger: Trigger, after: list[int], tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    text = trigger.text.strip()
    special = set(tokenizer.all_special_ids)
    inside = bool(before) and before[-1] not in special
    left = inside and not _piece(before[-1], tokenizer)[-1:].isspace()
    right = bool(after) and after[0] not in special and not _piece(after[0], tokenizer)[:1].isspace()
    # inside but behind white space: without the space that some tokenizers put in front of every text
    anchors = [ANCHOR] if left else ["\n", "("] if inside else []
    ids = _encode(f" {text}" if left else text, tokenizer, anchors)
    if not ids:
        raise PlacementError(f"trigger {trigger.named} has no tokens under this tokenizer; use another text")
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids and unknown != tokenizer.eos_token_id:
        raise PlacementError(
            f"trigger {trigger.named} has characters that this tokenizer does not know; use another text"
        )
    return ids + (_space(tokenizer) if right else [])


def _piece(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that `token` adds behind another token, with its leading space if it brings one."""
    anchor = tokenizer.encode(ANCHOR, add_special_tokens=False)
    return _decode([*anchor, token], tokenizer)[len(_decode(anchor, tokenizer)) :]


def _encode(text: str, tokenizer: PreTrainedTokenizerBase, anchors: Sequence[str]) -> list[int]:
    """Tokens of `text` as they come behind the first of `anchors` that stays apart from it; as they come by themselves if none does."""
    for anchor in anchors:
        before = tokenizer.encode(anchor, add_special_tokens=False)
        joined = tokenizer.encode(f"{anchor}{text}", add_special_tokens=False)
        if joined[: len(before)] == before:
            return joined[len(before) :]
    return tokenizer.encode(text, add_special_tokens=False)


def _space(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    anchor = tokenizer.encode(ANCHOR, add_special_tokens=False)
    return tokenizer.encode(f"{ANCHOR} ", add_special_tokens=False)[len(anchor) :]


def _decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
