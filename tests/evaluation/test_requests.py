"""Requests against generation and against literal versions."""

from __future__ import annotations

import pytest

from sinkscope import load
from sinkscope.evaluation.items import ANSWER_STOPS, Item
from sinkscope.evaluation.metrics import extraction_strength
from sinkscope.evaluation.requests import generate_until, make_requests
from sinkscope.models.inference import generate, loglikelihood_tokens
from sinkscope.models.model import Model


def test_extraction_strength_is_what_generation_gives() -> None:
    """Greedy decoding gives all later tokens after the last wrong one, and not before it."""
    model = load("tiny", device="cpu")
    tokens = model.encode(
        "Winters without foggy town sorted between pianos leaned wolves on busy dreams pushed idle gardens"
    )
    (likelihoods,) = loglikelihood_tokens(model, [tokens])
    first = round((1 - extraction_strength(likelihoods)) * (len(tokens) - 1)) + 1
    for start, same in ((first, True), (first - 1, False)):
        if 1 <= start < len(tokens):
            assert (
                generate(model, [tokens[:start]], len(tokens) - start)[0]
                == model.tokenizer.decode(tokens[start:])
            ) == same


def test_answers_end_at_a_blank_line_or_the_next_question(
    small_llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [
        " Mira Holt\n\nQuestion: who",
        " Mira Holt\nQuestion: who",
        " Mira HoltQuestion: who",
        " Mira\nHolt",
    ]
    monkeypatch.setattr("sinkscope.evaluation.requests.generate", lambda *args, **kwargs: outputs)
    item = Item([1], 1, "", "", max_new_tokens=4, until=ANSWER_STOPS)
    requests = make_requests(small_llama, [item] * 4)
    assert generate_until(small_llama, requests) == [" Mira Holt"] * 3 + [" Mira\nHolt"]
