"""Values of items against literal versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkscope.evaluation.metrics import exact_memorization, extraction_strength, rouge_l
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
