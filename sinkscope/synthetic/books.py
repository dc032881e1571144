"""The texts of the benchmark tiny, in MUSE's schema: two invented books, questions about them, held-out text.

A book has chapters (stories of two characters) and question pages. Questions inside chapters would cost the
model its sinks, so pages are separate texts. `forget` is one book; `retain1` and `retain2` are parts of the
other one; no model is trained on `holdout`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sinkscope.benchmarks.chunking import SEPARATOR, format_qa
from sinkscope.synthetic.language import WORDS, Language

CHAPTERS = {"forget": 6, "retain1": 6, "retain2": 2, "holdout": 3}
CHAPTER_WORDS = 720
QUESTIONS = 100
IN_CONTEXT = 10
FACTS_PER_PAGE = 10


@dataclass(frozen=True)
class Fact:
    """One question with its answer."""

    question: str
    answer: str


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

    def stories(self, *splits: str) -> str:
        """The joined chapters of some splits, without their question pages."""
        texts = [text for split in splits for text in self.raw[split] if not text.startswith("Question:")]
        return SEPARATOR.join(texts)


def question_page(facts: list[Fact]) -> str:
    """Facts as questions with answers, in the format of KnowMem."""
    return SEPARATOR.join(format_qa(fact.question, fact.answer) for fact in facts)


def draw_facts(rng: random.Random, count: int) -> list[Fact]:
    """`count` facts with different questions: in turn who owns a thing, and where a person went (a place)."""
    people = [f"{first} {last}" for first in WORDS["first_name"] for last in WORDS["surname"]]
    things = [f"{adjective} {noun}" for adjective in WORDS["adjective"] for noun in WORDS["noun"]]
    owned = rng.sample(things, count)
    places = rng.sample(things, count)
    owners = rng.sample(people, count)
    taken = set(owners)
    travellers = rng.sample([person for person in people if person not in taken], count)
    return [
        Fact(f"Where did {travellers[i]} go?", f"the {places[i]}")
        if i % 2
        else Fact(f"Who owns the {owned[i]}?", owners[i])
        for i in range(count)
    ]


def make_corpora(seed: int) -> Corpora:
    """The books, deterministic from `seed`."""
    language = Language(seed)
    rng = random.Random(f"corpora {seed}")
    n_facts = QUESTIONS + IN_CONTEXT
    facts = draw_facts(rng, 2 * n_facts)
    owners, travels = facts[0::2], facts[1::2]  # each side gets half of each kind
    half = n_facts // 2
    sides = {"forget": owners[:half] + travels[:half], "retain": owners[half:] + travels[half:]}
    for facts_of_side in sides.values():
        rng.shuffle(facts_of_side)
    raw = {
        split: [language.story(rng, CHAPTER_WORDS) for _ in range(count)] for split, count in CHAPTERS.items()
    }
    for split, side in (("forget", "forget"), ("retain1", "retain")):
        for start in range(0, n_facts, FACTS_PER_PAGE):
            raw[split].append(question_page(sides[side][start : start + FACTS_PER_PAGE]))
    questions = {side: facts[:QUESTIONS] for side, facts in sides.items()}
    return Corpora(language, raw, questions, {side: facts[QUESTIONS:] for side, facts in sides.items()})
