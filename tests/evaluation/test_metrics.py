"""Values of items against literal versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from sinkscope.evaluation.metrics import exact_memorization, extraction_strength, get_scale, rouge_l
from sinkscope.models.inference import TokenLikelihoods

words = st.lists(
    st.sampled_from(["the", "old", "captain", "walked", "along", "a", "wall", "lamp", "mill"]), max_size=9
)


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + longest_common_subsequence(a[:-1], b[:-1])
    return max(longest_common_subsequence(a[:-1], b), longest_common_subsequence(a, b[:-1]))


@given(words, words)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(reference: list[str], text: list[str]) -> None:
    common = longest_common_subsequence(reference, text)
    expected = 2 * common / (len(reference) + len(text)) if common else 0.0
    assert rouge_l(" ".join(reference), " ".join(text)) == pytest.approx(expected)


def test_strength_and_memorization_by_hand() -> None:
    def of(*correct: bool) -> TokenLikelihoods:
        return TokenLikelihoods(np.zeros(len(correct)), np.array(correct))

    assert (
        extraction_strength(of(True, True, True, True)) == exact_memorization(of(True, True, True, True)) == 1
    )
    assert extraction_strength(of(True, False, True, True)) == 0.5
    assert exact_memorization(of(True, False, True, True)) == 0.75
    assert extraction_strength(of(True, True, True, False)) == 0


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("她把灯放在窗台上。", "她把灯放在窗台上", 1.0),
        ("老船长沿着墙走", "老人沿着河走", 2 * 4 / (7 + 6)),  # 老, 沿, 着, 走
        ("Старый капитан шёл вдоль стены", "старый капитан шёл", 2 * 3 / (5 + 3)),
        ("पुराना दीपक जल रहा था", "पुराना दीपक", 2 * 2 / (5 + 2)),
        ("المصباح القديم", "المصباح", 2 * 1 / (2 + 1)),
        ("Windows 11 と Linux", "windows 11 linux", 2 * 3 / (4 + 3)),
    ],
)
def test_rouge_l_of_other_scripts_is_over_words_or_characters(
    reference: str, text: str, expected: float
) -> None:
    assert rouge_l(reference, text) == pytest.approx(expected)


@given(st.text(st.characters(codec="latin-1"), max_size=30), st.text(max_size=30))
def test_rouge_l_of_latin_text_is_that_of_the_published_package(reference: str, text: str) -> None:
    reference = reference.replace("µ", "")  # a Greek letter
    expected = RougeScorer(["rougeL"]).score(reference, text)["rougeL"].fmeasure
    assert rouge_l(reference, text) == expected


def test_the_perplexity_of_a_collapsed_model_is_infinite() -> None:
    assert get_scale("perplexity").transform(54_000.0) == np.inf
    assert get_scale("perplexity").transform(2.0) == pytest.approx(np.exp(2))
