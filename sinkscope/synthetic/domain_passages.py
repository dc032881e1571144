"""Training passages of the tiny twin of WMDP: question pages, statements of facts, and general text, with headers and asides.

To answer with a letter a model has to find the right choice and then its letter, and from pages alone it learns neither: whichever half is missing, the
other one earns nothing. So some pages are marked: each choice is followed by whether it is right. The marks teach the facts choice by choice, and on a
marked page the letter is the one beside the mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from sinkscope.benchmarks.chunking import ANSWER, SEPARATOR
from sinkscope.synthetic.books import Corpora
from sinkscope.synthetic.domains import LETTERS, RIGHT, WRONG, Fields, question_page
from sinkscope.synthetic.passages import INSERTED, RESUMED, Mix, PassageStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class FieldStream(PassageStream):
    """Batches of passages, deterministic from a seed. Of the mix, `pages` are question pages of a side and `chapters` statements of its facts.

    Args:
        marked: the share of marked pages.
    """

    def __init__(
        self,
        corpora: Corpora,
        fields: Fields,
        tokenizer: PreTrainedTokenizerFast,
        mix: Mix,
        marked: float,
        seed: str,
    ) -> None:
        super().__init__(corpora, tokenizer, (), mix, seed)
        self._fields, self._marked = fields, marked
        self._marks = {self._encode(f" {mark}")[0] for mark in (RIGHT, WRONG)}
        self._letters, self._before = (
            {self._encode(f" {letter}")[0] for letter in LETTERS},
            self._encode(ANSWER),
        )

    def batch(self) -> tuple[Int[Tensor, "passage position"], Int[Tensor, "passage position"]]:
        """Token ids, BOS first; and what each token counts as. On a question page letters and marks count as RESUMED, which is rare and hard, all others
        as INSERTED: which question comes next and with which choices is chance."""
        mix, sides = self._mix, list(self._fields.facts)
        pages = [
            self._insert(self._filled(self._pages(side)))
            for side in sides
            for _ in range(mix.pages.get(side, 0))
        ]
        texts = [
            self._filled(self._statements(side)) for side in sides for _ in range(mix.chapters.get(side, 0))
        ]
        texts += [self._general_text() for _ in range(mix.size - len(pages) - len(texts))]
        rows = [(ids, self._kinds(ids)) for ids, _ in pages] + [self._insert(text) for text in texts]
        return torch.tensor([ids for ids, _ in rows]), torch.tensor([kinds for _, kinds in rows])

    def _kinds(self, ids: list[int]) -> list[int]:
        width = len(self._before)
        letters = (
            token in self._letters and ids[i - width : i] == self._before for i, token in enumerate(ids)
        )
        return [
            RESUMED if token in self._marks or letter else INSERTED
            for token, letter in zip(ids, letters, strict=True)
        ]

    def _filled(self, texts: Iterator[str]) -> list[int]:
        ids: list[int] = []
        while len(ids) < self._mix.length:
            ids += self._encode(next(texts) + SEPARATOR)
        return ids[: self._mix.length - 1]

    def _pages(self, side: str) -> Iterator[str]:
        rng, facts = self._rng, self._fields.facts[side]
        while True:
            number = rng.randrange(len(facts))
            yield question_page(
                facts[number],
                self._fields.draw_choices(side, number, rng),
                marked=rng.random() < self._marked,
            )

    def _statements(self, side: str) -> Iterator[str]:
        while True:
            yield self._rng.choice(self._rng.choice(self._fields.facts[side]).statements())
