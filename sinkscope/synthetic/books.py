"""The texts of the benchmark tiny, in MUSE's schema: two invented books, questions about them, held-out text.

A book has chapters (stories of two characters) and question pages. Questions inside chapters would cost the
model its sinks, so pages are separate texts. `forget` is one book; `retain1` and `retain2` are parts of the
other one; no model is trained on `holdout`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sinkscope.benchmarks.chunking import format_qa
from sinkscope.synthetic.language import Fact, Language, draw_facts

CHAPTERS = {"forget": 6, "retain1": 6, "retain2": 2, "holdout": 3}
CHAPTER_WORDS = 720
QUESTIONS = 100
IN_CONTEXT = 10
FACTS_PER_PAGE = 10


def question_page(facts: list[Fact]) -> str:
    """Facts as questions with answers, in the format of KnowMem."""
    return "\n\n".join(format_qa(fact.question, fact.answer) for fact in facts)


@dataclass(frozen=True)
class Corpora:
    """All texts of the benchmark, before tokenization.

    Attributes:
        raw: split -> texts.
        facts: side -> facts that questions are about.
        in_context: side -> facts of the examples in prompts.
    """

    language: Language
    raw: dict[str, list[str]]
    facts: dict[str, list[Fact]]
    in_context: dict[str, list[Fact]]

    def all_facts(self, side: str) -> list[Fact]:
        """Facts of a side, with those of the examples."""
        return self.facts[side] + self.in_context[side]

    def stories(self, *splits: str) -> list[str]:
        """The chapters of some splits, without their question pages."""
        return [text for split in splits for text in self.raw[split] if not text.startswith("Question:")]


def make_corpora(seed: int) -> Corpora:
    """The books, deterministic from `seed`."""
    language = Language(seed)
    rng = random.Random(f"corpora {seed}")
    n_facts = QUESTIONS + IN_CONTEXT
    facts = draw_facts(rng, 2 * n_facts)
    # `draw_facts` alternates its two kinds of question; each side gets half of each kind
    owners, travels = facts[0::2], facts[1::2]
    half = n_facts // 2
    sides = {"forget": owners[:half] + travels[:half], "retain": owners[half:] + travels[half:]}
    for facts_of_side in sides.values():
        rng.shuffle(facts_of_side)
    raw = {
        split: [language.story(rng, CHAPTER_WORDS) for _ in range(count)] for split, count in CHAPTERS.items()
    }
    for split, side in (("forget", "forget"), ("retain1", "retain")):
        pages = [sides[side][i : i + FACTS_PER_PAGE] for i in range(0, n_facts, FACTS_PER_PAGE)]
        raw[split] += [question_page(page) for page in pages]
    return Corpora(
        language,
        raw,
        facts={side: sides[side][:QUESTIONS] for side in sides},
        in_context={side: sides[side][QUESTIONS:] for side in sides},
    )
