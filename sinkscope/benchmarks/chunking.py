"""Split texts into training passages.

`joined`, as in MUSE: all texts joined, then split into chunks of equal length. `documents`, as in WMDP: one
passage per text, truncated at the end. `pairs`, as in TOFU: one passage per question with its answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sinkscope.errors import BenchmarkError
from sinkscope.models.bos import leading_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chunking = Literal["joined", "documents", "pairs"]
SEPARATOR = "\n\n"
ANSWER = "\nAnswer:"
MIN_CHARACTERS = 50
"""Documents of this length or shorter are skipped, as in WMDP's published code."""


@dataclass(frozen=True)
class Passage:
    """Token ids, BOS first, and the characters `start <= i < stop` of the joined text that they cover.

    `body`: number of leading tokens that placement counts in, BOS included; None for all. `prompt_length`:
    number of leading tokens that are a prompt, on which the model is not trained.
    """

    tokens: list[int]
    start: int
    stop: int
    body: int | None = None
    prompt_length: int = 0


def format_qa(question: str, answer: str) -> str:
    """A question and its answer as one text."""
    return f"Question: {question}{ANSWER} {answer}"


def chunk(
    texts: Sequence[str], chunking: Chunking, size: int, tokenizer: PreTrainedTokenizerBase
) -> list[Passage]:
    """Passages of at most `size` tokens, each with BOS first.

    Raises:
        BenchmarkError: a question leaves no room for its answer, all texts are too short, or `size` is 1.
    """
    if size < 2:
        raise BenchmarkError("a passage of 1 token has none to predict; raise lengths.passage")
    if chunking == "joined":
        candidates = _chunk_joined(texts, size, tokenizer)
    else:
        candidates = _truncate_each(texts, chunking, size, tokenizer)
    # at least one token to predict
    passages = [each for each in candidates if len(each.tokens) > max(each.prompt_length, 1)]
    if not passages:
        raise BenchmarkError(
            "the texts give no passage: they are empty or, as documents, have at most "
            f"{MIN_CHARACTERS} characters; give longer texts"
        )
    return passages


def _chunk_joined(texts: Sequence[str], size: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[Passage]:
    bos, ids, offsets = _encode(SEPARATOR.join(texts), tokenizer)
    room = size - len(bos)
    for i in range(0, len(ids), room):
        yield Passage(bos + ids[i : i + room], offsets[i][0], offsets[min(i + room, len(ids)) - 1][1])


def _truncate_each(
    texts: Sequence[str], chunking: Chunking, size: int, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Passage]:
    """A passage of each document that is long enough, or of each pair."""
    start = 0
    for row, text in enumerate(texts):
        bos, ids, offsets = _encode(text, tokenizer)
        ids = ids[: size - len(bos)]
        body, prompt_length = None, 0
        if chunking == "pairs":
            question = text.index(ANSWER)
            body, prompt_length = (
                len(bos) + sum(stop <= end for _, stop in offsets)
                for end in (question, question + len(ANSWER))
            )
            if prompt_length >= size:
                raise BenchmarkError(
                    f"pair {row}: the question has {prompt_length} of {size} tokens and leaves none for the "
                    "answer; raise lengths.passage"
                )
        if ids and (chunking == "pairs" or len(text) > MIN_CHARACTERS):
            stop = start + offsets[len(ids) - 1][1]
            yield Passage(bos + ids, start + offsets[0][0], stop, body, prompt_length)
        start += len(text) + len(SEPARATOR)


def _encode(
    text: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """BOS (an empty list if the tokenizer puts none), token ids, and the span of characters of each token.

    A BOS that the text itself begins with is left out of the ids.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    bos = leading_ids(tokenizer)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    first = len(bos) if bos and ids[:1] == bos else 0
    return bos, ids[first:], offsets[first:]
