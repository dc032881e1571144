"""Streams of training passages for the built-in models, deterministic from a seed.

Passages are random crops, so that nothing depends on an absolute position. Headers and *distractors* (notes,
page numbers, ornaments) are inserted into them. After a distractor the text resumes where it stopped, so a
model has to look back beyond the distractor for the next word. Sinks form while it learns to; a likely reason
is that heads made for distractors need a position to attend to elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from sinkscope.benchmarks.chunking import ANSWER, SEPARATOR
from sinkscope.models.bos import leading_ids
from sinkscope.synthetic import books, domains
from sinkscope.synthetic.books import Corpora
from sinkscope.synthetic.domains import LETTERS, MARK_RIGHT, MARK_WRONG, Domains

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T")
TEXT, INSERTED, RESUMED = range(3)
"""Kinds of token: the text itself, an inserted header or distractor, the first token of the text after a
distractor."""
SPLITS = {"forget": ("forget",), "retain": ("retain1", "retain2")}
Batch = tuple[Int[Tensor, "passage position"], Int[Tensor, "passage position"]]
"""Token ids, BOS first, and the kind of each token."""


@dataclass(frozen=True)
class PassageMix:
    """What the `size` passages of a batch are, of `length` tokens each.

    Attributes:
        chapters: side -> number of crops of its chapters (of a domain: of statements of its facts).
        pages: side -> number of question pages. General text makes up the difference to `size`.
        distractor_rate: share of passages with distractors, of which one has at most `distractors`.
        header_rate: share of passages that begin with a header.
        marked_rate: share of a domain's questions that have marks at their choices.
    """

    size: int
    chapters: Mapping[str, int]
    pages: Mapping[str, int]
    distractor_rate: float
    distractors: int
    header_rate: float = 0.5
    length: int = 128
    marked_rate: float = 0.0


class PassageStream:
    """Batches of passages of the books.

    Args:
        sides: the books to read, of `forget` and `retain`. General text replaces a book that is left out.
    """

    def __init__(
        self,
        corpora: Corpora,
        tokenizer: PreTrainedTokenizerFast,
        sides: Sequence[str],
        mix: PassageMix,
        seed: str,
    ) -> None:
        self.tokenizer = tokenizer
        self._bos = leading_ids(tokenizer)
        self.language = corpora.language
        self._rng = random.Random(seed)
        self._mix = mix
        self._sides = sides
        self._chapters = {side: self._encode(corpora.stories(*SPLITS[side])) for side in sides}
        self._facts = {
            side: [
                self._encode(books.question_page([fact]) + SEPARATOR)
                for fact in corpora.facts[side] + corpora.in_context[side]
            ]
            for side in sides
        }
        self._general: list[int] = []
        self._answer = self._encode("\nAnswer")

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def batch(self) -> Batch:
        """The next batch."""
        rows = self._draw(self._mix.chapters, lambda side: self._crop(self._chapters[side]))
        rows += self._draw(self._mix.pages, lambda side: self._page(self._facts[side]))
        rows += [self._general_text() for _ in range(self._mix.size - len(rows))]
        return _to_tensors([self._insert(row) for row in rows])

    def _draw(self, counts: Mapping[str, int], draw_one: Callable[[str], T]) -> list[T]:
        return [draw_one(side) for side in self._sides for _ in range(counts.get(side, 0))]

    def _crop(self, ids: list[int]) -> list[int]:
        start = self._rng.randrange(len(ids) - self._mix.length)
        return ids[start : start + self._mix.length - 1]

    def _page(self, facts: list[list[int]]) -> list[int]:
        """Facts in random order; half of the pages begin inside a fact."""
        ids = [token for fact in self._rng.sample(facts, 16) for token in fact]
        return self._crop(ids) if self._rng.random() < 0.5 else ids[: self._mix.length - 1]

    def _general_text(self) -> list[int]:
        size = self._mix.length - 1
        while len(self._general) < size:
            self._general = self._encode(self.language.story(self._rng, 400))
        row, self._general = self._general[:size], self._general[size:]
        return row

    def _insert(self, row: list[int]) -> tuple[list[int], list[int]]:
        """Add BOS (if the tokenizer has one), a header and distractors, and truncate at the end."""
        rng, mix = self._rng, self._mix
        tokens = [*self._bos, *row]
        header = len(self._bos)
        positions: set[int] = set()
        if rng.random() < mix.distractor_rate:
            positions |= self._distractor_positions(tokens)
        if rng.random() < mix.header_rate:
            positions.add(header)
        kinds = [TEXT] * len(tokens)
        for position in sorted(positions, reverse=True):  # from the end, so that earlier positions stay valid
            before = tokens[position - 1] if position > header else None
            inserted = self._encode_insertion(before, self.language.insertion(rng), tokens[position])
            tokens = [*tokens[:position], *inserted, *tokens[position:]]
            following = TEXT if position == header else RESUMED
            kinds[position : position + 1] = [*[INSERTED] * len(inserted), following]
        return tokens[: mix.length], kinds[: mix.length]

    def _encode_insertion(self, before: int | None, text: str, after: int) -> list[int]:
        """Tokens of `text` between two tokens of a passage, with the spaces that are missing around it.

        None before it: it is at the start of the text, and has no leading space.
        """
        has_space = before is None or self._piece(before)[-1:].isspace()
        ids = self._encode(text if has_space else f" {text}")
        return ids if self._piece(after)[:1].isspace() else ids + self._encode(" ")

    def _piece(self, token: int) -> str:
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)

    def _distractor_positions(self, tokens: list[int]) -> set[int]:
        """Any positions, but half of those in a question page are the ends of questions."""
        rng = self._rng
        positions = set(rng.sample(range(2, len(tokens)), rng.randint(1, self._mix.distractors)))
        ends = [i for i in range(2, len(tokens) - 1) if tokens[i : i + len(self._answer)] == self._answer]
        return {rng.choice(ends) if ends and rng.random() < 0.5 else position for position in positions}


class DomainStream(PassageStream):
    """Batches of question pages, statements of facts, and general text: the passages of tiny-wmdp.

    To answer with a letter a model has to find the right choice and then its letter. From pages alone it
    learns neither, because each half is useless without the other. So some questions are marked: each choice
    is followed by a mark, right or wrong. The marks teach the facts, and in a marked question the letter is
    the one with the mark.
    """

    def __init__(
        self,
        corpora: Corpora,
        content: Domains,
        tokenizer: PreTrainedTokenizerFast,
        mix: PassageMix,
        seed: str,
    ) -> None:
        super().__init__(corpora, tokenizer, (), mix, seed)
        self._sides = list(content.facts)
        self._domains = content
        self._marks = {self._encode(f" {mark}")[0] for mark in (MARK_RIGHT, MARK_WRONG)}
        self._letters = {self._encode(f" {letter}")[0] for letter in LETTERS}
        self._before_letter = self._encode(ANSWER)

    def batch(self) -> Batch:
        """The next batch. In a question page letters and marks are RESUMED, which is rare and hard; all other
        tokens are INSERTED, because the next question and its choices are random."""
        pages = self._draw(self._mix.pages, lambda side: self._insert(self._fill(self._page_text, side)))
        texts = self._draw(self._mix.chapters, lambda side: self._fill(self._statement, side))
        texts += [self._general_text() for _ in range(self._mix.size - len(pages) - len(texts))]
        return _to_tensors(
            [(ids, self._kinds(ids)) for ids, _ in pages] + [self._insert(row) for row in texts]
        )

    def _kinds(self, ids: list[int]) -> list[int]:
        width = len(self._before_letter)
        kinds = []
        for i, token in enumerate(ids):
            is_letter = token in self._letters and ids[i - width : i] == self._before_letter
            kinds.append(RESUMED if token in self._marks or is_letter else INSERTED)
        return kinds

    def _fill(self, draw: Callable[[str], str], side: str) -> list[int]:
        ids: list[int] = []
        while len(ids) < self._mix.length:
            ids += self._encode(draw(side) + SEPARATOR)
        return ids[: self._mix.length - 1]

    def _page_text(self, side: str) -> str:
        fact = self._rng.choice(self._domains.facts[side])
        choices = fact.draw_choices(self._rng)
        return domains.question_page(fact, choices, self._rng.random() < self._mix.marked_rate)

    def _statement(self, side: str) -> str:
        return self._rng.choice(self._rng.choice(self._domains.facts[side]).statements)


def _to_tensors(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    return torch.tensor([ids for ids, _ in rows]), torch.tensor([kinds for _, kinds in rows])
