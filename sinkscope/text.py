"""Cut documents and chats into passages of tokens, and decode tokens for display."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sinkscope.errors import TextError
from sinkscope.models.characters import MAX_CHARACTER_TOKENS, REPLACEMENT
from sinkscope.models.chat import Body, Message
from sinkscope.models.model import Model

LOGGER = logging.getLogger("sinkscope")
MIN_TOKENS = 16
"""Passages and documents with fewer tokens are left out."""
CONTINUATION = "←"
"""Displayed for a token that continues the character of the token before it."""


class TokenSequences(Sequence[list[int]]):
    """Token ids of many passages, four bytes per token; reads like a list of lists."""

    def __init__(self, passages: Iterable[Sequence[int]] = ()) -> None:
        self._tokens = array("i")
        self._ends = array("q", [0])
        for passage in passages:
            self.append(passage)

    def append(self, passage: Sequence[int]) -> None:
        self._tokens.extend(passage)
        self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._tokens[self._ends[number] : self._ends[number + 1]].tolist()


def tokenize_passages(
    texts: Iterable[str], model: Model, max_length: int, label: str = "text"
) -> TokenSequences:
    """Cut documents into passages of at most `max_length` tokens, BOS included, in their order.

    A passage never spans two documents. Remainders of fewer than `MIN_TOKENS` tokens are left out. Error
    messages call the texts `label`.

    Raises:
        TextError: no document is long enough, the model cannot read `max_length` tokens, or `texts`
            is one string.
    """
    if isinstance(texts, str):
        raise TextError(
            "`texts` is a single string; give a list of texts, as in tokenize_passages([text], model, 64)"
        )
    if max_length < MIN_TOKENS:
        raise TextError(f"`max_length` {max_length} is too short to measure sinks; use at least {MIN_TOKENS}")
    check_max_length(model, max_length)
    size = max_length - (model.bos_id is not None)
    passages = TokenSequences()
    lengths = []
    for text in texts:
        ids = model.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        lengths.append(len(ids))
        for start in range(0, len(ids) - MIN_TOKENS + 1, size):
            passages.append(model.with_bos(ids[start : start + size]))
    if not passages:
        raise TextError(
            f"{label} is too short: its longest document has {max(lengths, default=0)} tokens, "
            f"at least {MIN_TOKENS} are needed; give a longer text"
        )
    if n_short := sum(length < MIN_TOKENS for length in lengths):
        LOGGER.warning(
            "%d of %d documents have fewer than %d tokens and are left out", n_short, len(lengths), MIN_TOKENS
        )
    return passages


def tokenize_chats(
    documents: Iterable[str | list[Message]], model: Model, max_length: int, label: str = "text"
) -> tuple[TokenSequences, list[Body]]:
    """Put documents through the chat template of a model, in passages of at most `max_length` tokens.

    A text is cut into pieces, each of which is the user's turn of a chat of its own; remainders of fewer than
    `MIN_TOKENS` tokens are left out. Messages are one chat, whose end is cut off if it is too long.

    Returns:
        The passages, and in each the tokens of the user's last turn, in which triggers are placed.

    Raises:
        TextError: no document is long enough, or the model or the template leaves no room in `max_length`.
        ModelError: as `Model.with_chat`.
    """
    check_max_length(model, max_length)
    passages, bodies = TokenSequences(), []
    n_short = n_documents = n_cut = 0
    for document in documents:
        n_documents += 1
        if isinstance(document, str):
            chats = list(_cut_chat(document, model, max_length))
        else:
            ids, body = model.encode_chat(document)
            stop = min(body.stop, max_length)
            n_cut += len(ids) > max_length
            is_short = len(ids) < MIN_TOKENS or stop <= body.start
            chats = [] if is_short else [(ids[:max_length], replace(body, stop=stop))]
        n_short += not chats
        for ids, body in chats:
            passages.append(ids)
            bodies.append(body)
    if not passages:
        raise TextError(f"{label} has no chat of at least {MIN_TOKENS} tokens; give a longer text")
    if n_cut:
        LOGGER.warning(
            "%d of %d chats are longer than %d tokens, and what follows is not read; raise the length",
            *(n_cut, n_documents, max_length),
        )
    if n_short:
        LOGGER.warning(
            "%d of %d documents are too short, or end before the user's turn, and are left out",
            *(n_short, n_documents),
        )
    return passages, bodies


def _cut_chat(text: str, model: Model, max_length: int) -> Iterator[tuple[list[int], Body]]:
    """The chats of a text, each with as much of it as fits."""

    def render(start: int, stop: int) -> tuple[list[int], Body]:
        piece = text[offsets[start][0] : offsets[stop - 1][1]].strip()
        return model.encode_chat([{"role": "user", "content": piece}])

    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = [offset for offset in encoded["offset_mapping"] if offset[1] > offset[0]]
    ids, body = model.encode_chat([{"role": "user", "content": "text"}])
    room = max_length - (len(ids) - (body.stop - body.start))
    if room < MIN_TOKENS:
        raise TextError(
            f"`max_length` {max_length} leaves {max(room, 0)} tokens for the text, as the chat template has "
            f"{max_length - room}; raise it by {MIN_TOKENS - room}"
        )
    start = 0
    while len(offsets) - start >= MIN_TOKENS:
        stop = min(start + room, len(offsets))
        chat = render(start, stop)
        while len(chat[0]) > max_length:
            stop -= 1
            chat = render(start, stop)
        while len(chat[0]) < max_length and stop < len(offsets):
            longer = render(start, stop + 1)
            if len(longer[0]) > max_length:
                break
            stop, chat = stop + 1, longer
        yield chat
        start = stop


def check_max_length(model: Model, max_length: int) -> None:
    """Raise TextError if the model cannot read that many tokens."""
    limit = model.max_positions
    if limit is not None and max_length > limit:
        raise TextError(
            f"`max_length` {max_length} is more than the {limit} tokens that model {model.name!r} can read; "
            "lower it"
        )


def token_texts(model: Model, tokens: Sequence[int]) -> list[str]:
    """Decode each token by itself, with the leading space that SentencePiece drops from a single token.

    If several tokens form one character, the first gets the character and the others get `CONTINUATION`.
    """

    def decode(part: Sequence[int]) -> str:
        return model.tokenizer.decode(list(part), clean_up_tokenization_spaces=False)

    texts = [decode([token]) for token in tokens]
    for start, text in enumerate(texts):
        if REPLACEMENT not in text:
            continue
        for stop in range(start + 2, min(start + MAX_CHARACTER_TOKENS, len(texts)) + 1):
            joined = decode(tokens[start:stop])
            if REPLACEMENT not in joined:
                texts[start:stop] = [joined, *[CONTINUATION] * (stop - start - 1)]
                break
    pieces = model.tokenizer.convert_ids_to_tokens(list(tokens))
    return [
        " " + text if (piece or "").startswith("▁") and not text.startswith(" ") else text
        for piece, text in zip(pieces, texts, strict=True)
    ]
