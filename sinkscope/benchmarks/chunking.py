"""How texts become training passages.

`joined`, as in MUSE: all texts in one, cut into chunks of equal length. `documents`, as in WMDP: each text a passage of its own, cut off at
the end. `pairs`, as in TOFU: each question with its answer a passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sinkscope.benchmarks.schema import Cut
from sinkscope.errors import BenchmarkError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"
ANSWER = "\nAnswer:"
SHORTEST = 50
"""Documents of so many characters or fewer are skipped, as WMDP's published code does."""


@dataclass(frozen=True)
class Passage:
    """A chunk of training text: token ids with BOS first, and the characters `start <= i < stop` of the joined text it covers.

    `body`: how many leading tokens placement counts in, BOS included; None for all. `given`: how many leading tokens are a prompt, which is not trained on.
    """

    tokens: list[int]
    start: int
    stop: int
    body: int | None = None
    given: int = 0


def format_qa(question: str, answer: str) -> str:
    """A question with its answer, as a text."""
    return f"Question: {question}{ANSWER} {answer}"


def chunk(texts: Sequence[str], way: Cut, size: int, tokenizer: PreTrainedTokenizerBase) -> list[Passage]:
    """Passages of at most `size` tokens, BOS in front of each.

    Raises:
        BenchmarkError: a pair's question leaves no room for its answer, or all texts are too short.
    """
    found = {"joined": _joined, "documents": _documents, "pairs": _pairs}[way](texts, size, tokenizer)
    passages = [
        passage for passage in found if len(passage.tokens) > max(passage.given, 1)
    ]  # the others have no token to predict
    if not passages:
        raise BenchmarkError(
            f"no passage can be cut: the texts are empty or, as documents, have {SHORTEST} characters or fewer; give longer ones"
        )
    return passages


def _joined(texts: Sequence[str], size: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[Passage]:
    bos, ids, offsets = _encode(SEPARATOR.join(texts), tokenizer)
    room = size - len(bos)
    for i in range(0, len(ids), room):
        yield Passage(bos + ids[i : i + room], offsets[i][0], offsets[min(i + room, len(ids)) - 1][1])


def _documents(texts: Sequence[str], size: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[Passage]:
    for start, text in _positions(texts):
        if len(text) > SHORTEST:
            bos, ids, offsets = _encode(text, tokenizer)
            if ids := ids[: size - len(bos)]:
                yield Passage(bos + ids, start + offsets[0][0], start + offsets[len(ids) - 1][1])


def _pairs(texts: Sequence[str], size: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[Passage]:
    for row, (start, text) in enumerate(_positions(texts)):
        bos, ids, offsets = _encode(text, tokenizer)
        question = text.index(ANSWER)
        body, given = (
            len(bos) + sum(stop <= end for _, stop in offsets) for end in (question, question + len(ANSWER))
        )
        if given >= size:
            raise BenchmarkError(
                f"pair {row}: the question takes {given} of {size} tokens and leaves none to the answer; raise lengths.passage"
            )
        ids = ids[: size - len(bos)]
        yield Passage(bos + ids, start, start + offsets[len(ids) - 1][1], body, given)


def _positions(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each text with the position of its first character in the joined text."""
    start = 0
    for text in texts:
        yield start, text
        start += len(text) + len(SEPARATOR)


def _encode(
    text: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """BOS (nothing where the tokenizer has none), token ids, and the characters that each of them covers."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return (
        [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id],
        encoded["input_ids"],
        encoded["offset_mapping"],
    )
