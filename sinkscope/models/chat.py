"""Chats: messages put through a model's own chat template, and where the user's turn stands in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sinkscope.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
"""`role` and `content`."""
ROLES = ("system", "developer", "user", "assistant", "tool")
SYSTEM_ROLES = ("system", "developer")
MARK = "sinkscope{}mark"
"""Stands for a text while a template is rendered, to see where the template puts it."""
DATE = datetime(2024, 7, 26)
"""What templates that print the date take for today, so that prompts do not change overnight."""
TODAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")


@dataclass(frozen=True)
class Chat:
    """That texts are put through the chat template, each as the user's turn.

    Args:
        system: the system prompt; by default there is none but what the template itself adds.
    """

    system: str | None = None


@dataclass(frozen=True)
class Body:
    """The part of a prompt that placement counts in: the tokens `start <= i < stop`.

    `system` is the position at which the text of the system prompt begins, if there is one.
    """

    start: int
    stop: int
    system: int | None = None


@dataclass(frozen=True)
class RenderedChat:
    """A rendered chat: its text, and the characters of the user's last turn and of the system prompt."""

    text: str
    start: int
    stop: int
    system: int | None = None

    def encode(self, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], Body]:
        """Token ids, as transformers gives them: the template itself has BOS, or there is none."""
        encoded = tokenizer(self.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = encoded["offset_mapping"]
        start, stop = self._first_token(offsets, self.start), sum(end <= self.stop for _, end in offsets)
        system = None if self.system is None else self._first_token(offsets, self.system)
        return encoded["input_ids"], Body(start, max(start, stop), system)

    def _first_token(self, offsets: Sequence[tuple[int, int]], character: int) -> int:
        """The first token of the text that begins at a character; it may have spaces before it, but not what
        ends the header of the turn."""
        for i, (start, stop) in enumerate(offsets):
            if start >= character or (stop > character and not self.text[start:character].strip(" ")):
                return i
        return len(offsets)


def render_chat(
    name: str, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], chat: Chat
) -> RenderedChat:
    """Put messages through the chat template, without thinking, after the system prompt of `chat` if they
    have none; the model's turn follows if the last message is not its own.

    Raises:
        ModelError: there is no template, or it refuses the messages or changes the text of a turn.
    """
    has_system = bool(messages) and messages[0]["role"] in SYSTEM_ROLES
    if chat.system is not None and not has_system:
        messages, has_system = [{"role": "system", "content": chat.system}, *messages], True
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        raise ModelError("a chat has no user's turn; give one")
    text = _apply(name, tokenizer, messages)
    start, stop = _find_content(name, tokenizer, messages, users[-1], text)
    system = _find_content(name, tokenizer, messages, 0, text)[0] if has_system else None
    return RenderedChat(text, start, stop, system)


def _find_content(
    name: str, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], index: int, text: str
) -> tuple[int, int]:
    """The characters of one message in the rendered text, found by rendering a mark in its place."""
    content = messages[index]["content"]
    number = 0
    while (mark := MARK.format(number)) in text:
        number += 1
    marked = [message | {"content": mark} if i == index else message for i, message in enumerate(messages)]
    before, found, after = _apply(name, tokenizer, marked).partition(mark)
    for written in (content, content.strip()):
        if found and f"{before}{written}{after}" == text:
            return len(before), len(before) + len(written)
    raise ModelError(
        f"model {name!r}: its chat template changes or repeats the text of the {messages[index]['role']}'s "
        "turn, so no trigger can be placed in it; leave out `chat`"
    )


def _apply(name: str, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    if not tokenizer.chat_template:
        raise ModelError(f"model {name!r} has no chat template; leave out `chat`")
    try:
        template = tokenizer.get_chat_template()
        return tokenizer.apply_chat_template(
            list(messages),
            chat_template=TODAY.sub(lambda match: repr(DATE.strftime(match["format"])), template),
            tokenize=False,
            add_generation_prompt=messages[-1]["role"] != "assistant",
            enable_thinking=False,
            thinking=False,
            date_string=DATE.strftime("%d %b %Y"),
        )
    except Exception as error:  # a template is a program, which fails in any way
        roles = ", ".join(message["role"] for message in messages)[:80]
        hint = "; leave out the system prompt" if messages[0]["role"] in SYSTEM_ROLES else ""
        raise ModelError(
            f"model {name!r}: its chat template refuses the turns {roles} ({first_line(error)[:160]}){hint}"
        ) from error
