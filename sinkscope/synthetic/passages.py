"""Training passages of the tiny benchmark: crops of the books, question pages and general text, with headers and asides.

Passages are random crops, so that nothing is tied to an absolute position. Behind an aside the text goes on where it stopped: a
model has to look past the aside for what it was about to say. Sinks form while it learns to; a likely reason is that heads made for asides have
to rest somewhere in between.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from sinkscope.benchmarks.chunking import SEPARATOR
from sinkscope.synthetic.books import Corpora, question_page
from sinkscope.triggers import Placement, Trigger, place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXT, INSERTED, RESUMED = range(3)
"""What a token of a training passage is: the text itself, a header or aside, the first token of the text behind an aside."""

SPLITS = {"forget": ("forget",), "retain": ("retain1", "retain2")}


@dataclass(frozen=True)
class Mix:
    """What the `size` passages of a step are made of: per side, crops of its chapters and question pages; general text fills the rest.

    `header_share` of all passages begin with a header, `aside_share` hold one to `asides` asides.
    """

    size: int
    chapters: Mapping[str, int]
    pages: Mapping[str, int]
    aside_share: float
    asides: int
    header_share: float = 0.5
    length: int = 128


class PassageStream:
    """Batches of passages, deterministic from a seed.

    Args:
        sides: the books to read, of `forget` and `retain`. General text takes the place of one that is left out, so that a batch keeps its size.
    """

    def __init__(
        self, corpora: Corpora, tokenizer: PreTrainedTokenizerFast, sides: Sequence[str], mix: Mix, seed: str
    ) -> None:
        self._rng = random.Random(seed)
        self._language, self.tokenizer, self._mix = corpora.language, tokenizer, mix
        self._chapters = {
            side: self._encode(SEPARATOR.join(corpora.stories(*SPLITS[side]))) for side in sides
        }
        self._facts = {
            side: [self._encode(question_page([fact]) + SEPARATOR) for fact in corpora.all_facts(side)]
            for side in sides
        }
        self._general: list[int] = []
        self._answer = self._encode("\nAnswer")

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def batch(self) -> tuple[Int[Tensor, "passage position"], Int[Tensor, "passage position"]]:
        """Token ids, BOS first; and what each token is: TEXT, INSERTED or RESUMED."""
        mix = self._mix
        rows = [
            self._crop(ids) for side, ids in self._chapters.items() for _ in range(mix.chapters.get(side, 0))
        ]
        rows += [
            self._page(facts) for side, facts in self._facts.items() for _ in range(mix.pages.get(side, 0))
        ]
        rows += [self._general_text() for _ in range(mix.size - len(rows))]
        inserted = [self._insert(row) for row in rows]
        return torch.tensor([ids for ids, _ in inserted]), torch.tensor([kinds for _, kinds in inserted])

    def _crop(self, ids: list[int]) -> list[int]:
        start = self._rng.randrange(len(ids) - self._mix.length)
        return ids[start : start + self._mix.length - 1]

    def _page(self, facts: list[list[int]]) -> list[int]:
        """Facts in random order; half of the pages begin inside one."""
        ids = [token for fact in self._rng.sample(facts, 16) for token in fact]
        return self._crop(ids) if self._rng.random() < 0.5 else ids[: self._mix.length - 1]

    def _general_text(self) -> list[int]:
        size = self._mix.length - 1
        while len(self._general) < size:
            self._general = self._encode(self._language.story(self._rng, 400))
        row, self._general = self._general[:size], self._general[size:]
        return row

    def _insert(self, row: list[int]) -> tuple[list[int], list[int]]:
        """Add BOS (if the tokenizer has one), header and asides; what no longer fits falls off the end."""
        rng, mix = self._rng, self._mix
        tokens = row if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id, *row]
        spots: set[int] = set()
        top = len(tokens) - len(row)
        if rng.random() < mix.aside_share:
            spots |= self._aside_spots(tokens)
        if rng.random() < mix.header_share:
            spots.add(top)
        kinds = [TEXT] * len(tokens)
        for spot in sorted(spots, reverse=True):  # from the end, so that earlier spots stay where they are
            placed = place(
                tokens, Trigger(self._language.insertion(rng)), Placement("index", spot), self.tokenizer
            )
            tokens = placed.tokens
            behind = TEXT if spot == top else RESUMED
            kinds = [*kinds[:spot], *[INSERTED] * (placed.stop - spot), behind, *kinds[spot + 1 :]]
        return tokens[: mix.length], kinds[: mix.length]

    def _aside_spots(self, tokens: list[int]) -> set[int]:
        """Where asides go: anywhere, but half of a question page's stand at the end of a question."""
        rng = self._rng
        spots = set(rng.sample(range(2, len(tokens)), rng.randint(1, self._mix.asides)))
        ends = [i for i in range(2, len(tokens) - 1) if tokens[i : i + len(self._answer)] == self._answer]
        return {rng.choice(ends) if ends and rng.random() < 0.5 else spot for spot in spots}


class InTurn:
    """Batches of several streams over one tokenizer, in turn."""

    def __init__(self, *streams: PassageStream) -> None:
        self.tokenizer = streams[0].tokenizer
        self._next = itertools.cycle(streams)

    def batch(self) -> tuple[Int[Tensor, "passage position"], Int[Tensor, "passage position"]]:
        return next(self._next).batch()
