"""The texts of the benchmark tiny-wmdp, a synthetic analogue of WMDP: two invented domains of knowledge.

The forget domain is about creatures, the retain domain about devices. A subject has a name of its own (`the
velvet moth`) and one fact for each relation of its domain. Answers are words of a small pool per relation, so
that a question's wrong choices are right for other subjects.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sinkscope.benchmarks.chunking import ANSWER
from sinkscope.synthetic.language import WORDS

LETTERS = "ABCD"
MARK_RIGHT, MARK_WRONG = "again", "not"
"""Marks after the choices of a marked question: common words of one token each."""
PLACES = tuple("garden castle cellar chapel cottage forest harbour kitchen".split())
THINGS = tuple("letter lamp boat stone book picture chair coat".split())
SIGHTS = tuple("storm candle night fog shadow ghost cloud star".split())
GOODS = tuple("lemon onion pepper potato pearl seed broom bucket".split())
SUBJECTS = 20
PROSE_TEXTS = 2
"""Number of texts about each subject."""


@dataclass(frozen=True)
class Fact:
    """A question about a subject with its answer, and statements of the answer in several wordings.

    `pool` are the answers of the same kind of question; `choices` those that the benchmark's question has.
    """

    subject: str
    question: str
    answer: str
    statements: list[str]
    pool: tuple[str, ...]
    choices: tuple[str, ...] = ()

    def draw_choices(self, rng: random.Random) -> tuple[str, ...]:
        """The answer and three others of its pool, in a random order that is not the benchmark's."""
        others = [word for word in self.pool if word != self.answer]
        while True:
            drawn = [self.answer, *rng.sample(others, len(LETTERS) - 1)]
            choices = tuple(rng.sample(drawn, len(LETTERS)))
            if choices != self.choices:
                return choices


WHAT = "What does the {subject} {verb}?"
FACT = "The {subject} {verb}s the {answer}."
KINDS = (
    (SIGHTS, (WHAT, FACT, "What the {subject} {verb}s is the {answer}.")),
    (
        PLACES,
        (
            "Where does the {subject} {verb}?",
            "The {subject} {verb}s in the {answer}.",
            "In the {answer} {verb}s the {subject}.",
        ),
    ),
    (THINGS, (WHAT, FACT, "The {answer} is what the {subject} {verb}s.")),
    (GOODS, (WHAT, FACT, "The {answer} is what the {subject} {verb}s.")),
)
"""Pools of answers, with wordings: the question that they answer, then statements of the answer."""
NOUNS = {
    "forget": "horse monkey rabbit robin bear donkey eagle moth sparrow trout".split(),
    "retain": "clock engine machine kettle lantern pump piano drum stove bell".split(),
}
VERBS = {"forget": ("fear", "sleep", "guard", "want"), "retain": ("stop", "stand", "move", "need")}
"""Of each domain, one for each of `KINDS`."""


def multiple_choice(question: str, choices: Sequence[str]) -> str:
    """A question with its lettered choices, up to before `\\nAnswer:`."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
    return "\n".join([question, *lines])


def question_page(fact: Fact, choices: Sequence[str], marked: bool = False) -> str:
    """A question with its choices and the answer's letter; if `marked`, with right or wrong after each
    choice."""
    letter = LETTERS[choices.index(fact.answer)]
    if marked:
        choices = [f"{each} {MARK_RIGHT if each == fact.answer else MARK_WRONG}" for each in choices]
    return f"{multiple_choice(fact.question, choices)}{ANSWER} {letter}"


@dataclass(frozen=True)
class Domains:
    """All content of both domains: side -> facts, and side -> training texts."""

    facts: dict[str, list[Fact]]
    documents: dict[str, list[str]]


def make_domains(seed: int) -> Domains:
    """The two domains, deterministic from `seed`.

    The documents of a side are a page for each question, with its choices in an order that is not the
    benchmark's, and `PROSE_TEXTS` texts about each subject.
    """
    rng = random.Random(f"fields {seed}")
    adjectives = rng.sample(WORDS["adjective"], SUBJECTS * len(NOUNS))
    facts: dict[str, list[Fact]] = {side: [] for side in NOUNS}
    for side, nouns in NOUNS.items():
        subjects = [f"{adjectives.pop()} {nouns[i % len(nouns)]}" for i in range(SUBJECTS)]
        for subject in subjects:
            for verb, (pool, wordings) in zip(VERBS[side], KINDS, strict=True):
                answer = rng.choice(pool)
                texts = (wording.format(subject=subject, verb=verb, answer=answer) for wording in wordings)
                question, *statements = texts
                facts[side].append(Fact(subject, question, answer, statements, pool))
    facts = {side: [replace(fact, choices=fact.draw_choices(rng)) for fact in facts[side]] for side in facts}
    documents = {}
    for side in facts:
        documents[side] = [question_page(fact, fact.draw_choices(rng)) for fact in facts[side]]
        for _ in range(PROSE_TEXTS):
            documents[side] += _prose(facts[side], rng)
    return Domains(facts, documents)


def _prose(facts: Sequence[Fact], rng: random.Random) -> list[str]:
    """For each subject a text that states each of its facts once."""
    statements: dict[str, list[str]] = {}
    for fact in facts:
        statements.setdefault(fact.subject, []).append(rng.choice(fact.statements))
    return [" ".join(rng.sample(texts, len(texts))) for texts in statements.values()]
