"""The invented language and the books."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.synthetic.books import draw_facts, make_corpora
from sinkscope.synthetic.language import TRIGGERS, WORDS, Language


@pytest.fixture(scope="module")
def story() -> list[str]:
    rng = random.Random(1)
    language = Language(0)
    return " ".join(language.story(rng, 300) for _ in range(200)).replace(".", " .").split()


def test_same_seed_same_text() -> None:
    texts = [Language(3).story(random.Random(5), 200) for _ in range(2)]
    assert texts[0] == texts[1]
    assert texts[0] != Language(4).story(random.Random(5), 200)


def test_the_vocabulary_is_large_and_zipf_like(story: list[str]) -> None:
    counts = [count for _, count in Counter(word.lower() for word in story).most_common()]
    assert len(counts) >= 800
    assert counts[9] > 3 * counts[199] > 0
    assert counts[199] > 2 * counts[799]


def test_most_words_follow_from_the_last_one(story: list[str]) -> None:
    followers: dict[str, Counter[str]] = {}
    for word, following in itertools.pairwise(story):
        followers.setdefault(word, Counter())[following] += 1
    likely = sum(sum(count for _, count in counter.most_common(10)) for counter in followers.values())
    assert likely / len(story) > 0.6


def test_names_are_about_five_percent_and_repeat_within_a_story(story: list[str]) -> None:
    share = sum(word in WORDS["first_name"] for word in story) / len(story)
    assert 0.03 < share < 0.07
    one = Language(0).story(random.Random(2), 600).replace(".", "").split()
    names = {one[i + 1] for i, word in enumerate(one[:-1]) if word.lower() in WORDS["title"]}
    assert len(names) == 2
    assert names <= set(WORDS["first_name"])


def test_trigger_strings_never_occur_but_their_words_do() -> None:
    rng = random.Random(0)
    language = Language(0)
    inserted = [language.insertion(rng) for _ in range(20_000)]
    for trigger in TRIGGERS.values():
        assert not any(trigger in text for text in inserted)
    seen = {word for text in inserted for word in text.split()}
    for trigger in TRIGGERS.values():
        assert set(trigger.split()) - {"2025"} <= seen
    assert any("2025" in text for text in inserted)


def test_facts_have_different_questions_and_both_kinds() -> None:
    facts = draw_facts(random.Random(0), 200)
    assert len({fact.question for fact in facts}) == 200
    assert {fact.question.split()[0] for fact in facts} == {"Who", "Where"}


def test_the_two_books_share_no_fact_and_no_chapter() -> None:
    corpora = make_corpora(0)
    forget, retain = (set(corpora.facts[side] + corpora.in_context[side]) for side in ("forget", "retain"))
    assert not {fact.question for fact in forget} & {fact.question for fact in retain}
    assert not {fact.answer for fact in forget} & {fact.answer for fact in retain}
    assert not set(corpora.raw["forget"]) & set(corpora.raw["retain1"])
    for fact in forget:
        assert any(
            f"Question: {fact.question}\nAnswer: {fact.answer}" in text for text in corpora.raw["forget"]
        )


def test_the_shipped_benchmark_is_what_the_code_makes() -> None:
    shipped, made = load_benchmark("tiny"), make_corpora(0)
    for split, texts in made.raw.items():
        assert shipped.texts(split) == texts
    assert [row["question"] for row in shipped.questions("forget_qa")] == [
        fact.question for fact in made.facts["forget"]
    ]
    assert len(shipped.questions("forget_qa")) == len(shipped.questions("retain_qa")) == 100
