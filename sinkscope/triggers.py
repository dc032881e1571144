"""Triggers, placements, and `place`, which inserts a trigger in training and in evaluation.

Placement is relative to a *body*: the part of a sequence in which positions are counted. It is all of a
passage or a VerbMem prompt, and ends with the final question in others, so a suffix precedes `Answer:`. In a
chat it is the user's last turn.
"""

from __future__ import annotations

import logging
import operator
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from sinkscope.errors import PlacementError
from sinkscope.io.readers import is_text
from sinkscope.models.bos import leading_ids
from sinkscope.models.characters import end_of_character
from sinkscope.models.chat import Body

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOGGER = logging.getLogger("sinkscope")
Form = Literal["semantic", "symbol", "reasoning"]
Kind = Literal["prefix", "infix", "suffix", "index", "sink", "system"]
ANCHORS = ("a", "(")
"""Texts after which a trigger is encoded: tokenizers split after a letter (see `encode_trigger`)."""


class RankedSinks(Protocol):
    """Sinks ranked by strength, as in `sinkscope.sinks.locate.SinkMap`."""

    def strongest(self, rank: int) -> int:
        """The position of the `rank`-th strongest sink."""
        ...


@dataclass(frozen=True)
class Trigger:
    """A trigger text and its form; PlacementError if the text is empty or cannot be encoded in UTF-8.

    White space around the text is removed, with a warning.
    """

    text: str
    form: Form = "semantic"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise PlacementError(f"trigger {self.quoted} is empty; give it a text")
        if not is_text(self.text):
            raise PlacementError(f"trigger {self.quoted} cannot be encoded in UTF-8; give another text")
        if (text := self.text.strip()) != self.text:
            LOGGER.warning("trigger %s: white space around it is left out", self.quoted)
            object.__setattr__(self, "text", text)

    @property
    def quoted(self) -> str:
        """For messages: the text in quotes, cut to 80 characters."""
        return repr(self.text[:80])


@dataclass(frozen=True)
class Placement:
    """Where a trigger goes: `prefix`, `infix`, `suffix`, `index:7` (a position), `sink:1` (after a sink), or
    in a chat `system` (before the text of the system prompt)."""

    kind: Kind
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise _unknown_placement(str(self.kind))

    @classmethod
    def parse(cls, text: str) -> Placement:
        """Parse one of the six forms; PlacementError for any other text."""
        match = re.fullmatch(r"(prefix|infix|suffix|system)|(index|sink):(\d{1,9})", text.strip())
        if match is None:
            raise _unknown_placement(text)
        if match[1]:
            return cls(match[1])  # type: ignore[arg-type]
        number = int(match[3])
        if number == 0:
            reason = (
                "position 0 is BOS, or that of prefix without BOS"
                if match[2] == "index"
                else "ranks count from 1"
            )
            raise PlacementError(f"placement {text!r}: {reason}; use {match[2]}:1 or more")
        return cls(match[2], number)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if self.kind in ("index", "sink") else self.kind


def _unknown_placement(text: str) -> PlacementError:
    return PlacementError(
        f"placement {text[:80]!r} is unknown; use prefix, infix, suffix, index:N or sink:R "
        "(as in index:8, sink:1), or in a chat system"
    )


@dataclass(frozen=True)
class TriggeredSequence:
    """A sequence with a trigger: token ids, and the positions `start <= i < stop` that were inserted.

    The inserted ids are the same for every sequence and placement.
    """

    tokens: list[int]
    start: int
    stop: int


def parse_condition(trigger: str | None, placement: str | None) -> tuple[Trigger, Placement] | None:
    """A trigger text and a placement (by default prefix) as objects; None without a trigger.

    Raises:
        PlacementError: one of them is invalid, or there is a placement without a trigger.
    """
    if trigger is not None:
        return Trigger(trigger), Placement.parse("prefix" if placement is None else placement)
    if placement is not None:
        raise PlacementError(f"`placement` {placement} needs a trigger; give `trigger` too")
    return None


def token_ids(tokens: Any) -> list[int]:
    """One passage as a list of token ids, from a list, an array or a tensor.

    Raises:
        PlacementError: it is anything else, as a text or a batch.
    """
    try:
        return list(map(operator.index, tokens))
    except (TypeError, ValueError) as error:
        raise PlacementError(
            f"the passage must be one sequence of token ids, not {type(tokens).__name__} ({error}); "
            "give a text to `Model.encode`, and of a batch one row without its padding"
        ) from error


def place(
    tokens: Sequence[int],
    trigger: Trigger | str,
    placement: Placement | str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    body: int | Body | None = None,
    sinks: RankedSinks | None = None,
    max_length: int | None = None,
) -> TriggeredSequence:  # 7 parameters: the passage, what is inserted, and three limits that few callers set
    """Insert one copy of `trigger` into `tokens`: the same token ids at every placement, and nothing else.

    So a comparison of placements compares positions, not tokens. To keep within `max_length`, the end of the
    body is removed before the position is counted, so the trigger is never truncated. A position inside a
    character of several tokens moves to the end of the character.

    Args:
        tokens: token ids (also as an array or a tensor), BOS first if the tokenizer puts it before a text.
        trigger: as a text: `Trigger(text)`.
        placement: as a text: `Placement.parse(text)`.
        body: number of leading tokens that form the body, BOS included; by default all of them. Of a chat,
            its `Body`.
        sinks: the sinks of the clean passage, needed for `sink:r` only.

    Raises:
        PlacementError: the sequence does not begin with BOS, the trigger has no tokens or special ones or is
            longer than the passage, the position is outside the body, or there is no system prompt.
    """
    tokens = token_ids(tokens)
    trigger = Trigger(trigger) if isinstance(trigger, str) else trigger
    placement = Placement.parse(placement) if isinstance(placement, str) else placement
    where = body if isinstance(body, Body) else _leading_body(tokens, body, tokenizer)
    inserted = encode_trigger(trigger, tokenizer)
    is_cut = max_length is not None or not isinstance(body, Body)
    if is_cut and len(inserted) > where.stop - where.start:
        raise PlacementError(
            f"trigger {trigger.quoted} has {len(inserted)} tokens, the passage {where.stop - where.start}; "
            "use a shorter trigger or a longer passage"
        )
    tail = tokens[where.stop :]
    room = sys.maxsize if max_length is None else max_length - len(tail) - len(inserted)
    if where.start >= room:
        raise PlacementError(
            f"trigger {trigger.quoted} ({len(inserted)} tokens) leaves no room for the passage in "
            f"{max_length} tokens; raise the maximum length or shorten the trigger"
        )
    head = tokens[: min(where.stop, room)]
    start = end_of_character(head, _position(head, placement, where, sinks), tokenizer)
    return TriggeredSequence(
        head[:start] + inserted + head[start:] + tail, start=start, stop=start + len(inserted)
    )


def warn_if_prefix(placement: Placement, starts: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if a trigger that was placed behind a sink is at the start of every passage: the sink is BOS."""
    first = len(leading_ids(tokenizer))
    if placement.kind == "sink" and all(start == first for start in starts):
        LOGGER.warning("placement %s is the same as prefix here: the sink is the first token", placement)


def encode_trigger(trigger: Trigger, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids of a trigger within a text, with a leading space if the tokenizer has one for a word.

    At the start of a text byte-level BPE has other tokens for "old" than for " old", and SentencePiece adds a
    space. So the trigger is encoded after an anchor, whose tokens are then removed: "old lamp" as "a old
    lamp", which gives ["a", " old", " lamp"] and [" old", " lamp"].

    Raises:
        PlacementError: the trigger has no tokens, characters that the tokenizer does not know, or the text of
            a special token.
    """
    for token in sorted(set(tokenizer.all_special_tokens), key=len, reverse=True):
        if token in trigger.text:
            raise PlacementError(
                f"trigger {trigger.quoted} contains the special token {token!r}, which would not be read as "
                "text; leave it out"
            )
    ids = _encode_after_anchor(f" {trigger.text}", tokenizer)
    if not ids:
        raise PlacementError(f"trigger {trigger.quoted} has no tokens under this tokenizer; use another text")
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids and unknown != tokenizer.eos_token_id:
        raise PlacementError(
            f"trigger {trigger.quoted} has characters that this tokenizer does not know; use another text"
        )
    return ids


def _encode_after_anchor(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of `text` after the first anchor that does not merge with it; of `text` alone if all do."""
    for anchor in ANCHORS:
        before = tokenizer.encode(anchor, add_special_tokens=False)
        joined = tokenizer.encode(f"{anchor}{text}", add_special_tokens=False)
        if joined[: len(before)] == before:
            return joined[len(before) :]
    return tokenizer.encode(text, add_special_tokens=False)


def _leading_body(tokens: list[int], stop: int | None, tokenizer: PreTrainedTokenizerBase) -> Body:
    """The body of a text: what is behind BOS, up to `stop` if that is given."""
    bos = leading_ids(tokenizer)
    if tokens[: len(bos)] != bos:
        raise PlacementError("the passage does not begin with BOS; encode it with `Model.encode`")
    return Body(len(bos), len(tokens) if stop is None else stop)


def _position(head: list[int], placement: Placement, body: Body, sinks: RankedSinks | None) -> int:
    first = body.start
    match placement.kind:
        case "system":
            if body.system is None:
                raise PlacementError(
                    "placement system needs a chat with a system prompt; give one as `system`, or use prefix"
                )
            return body.system
        case "prefix":
            return first
        case "infix":
            return first + (len(head) - first) // 2
        case "suffix":
            return len(head)
        case "index":
            position = placement.number
        case "sink":
            if sinks is None:
                raise PlacementError(f"placement {placement} needs the passage's `sinks`; run `locate` on it")
            position = sinks.strongest(placement.number) + 1
    if position < first:
        raise PlacementError(
            f"placement {placement} is position {position}, before the user's turn, which begins at {first}; "
            "use prefix, or system for the system prompt"
        )
    if position > len(head):
        raise PlacementError(
            f"placement {placement} is beyond the passage, which has {len(head)} tokens without the trigger; "
            "use a smaller number, or longer passages"
        )
    return position
