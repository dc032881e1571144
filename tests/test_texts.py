"""Tokens as text: each character once, also where a tokenizer makes several tokens of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sinkscope.models.model import load
from sinkscope.text import PART, token_texts

TEXT = "a road 😀 مرحبا “漢字” é"


@pytest.mark.parametrize("name", ["tiny", "llama"])
def test_parts_of_a_character_are_shown_as_one(name: str, checkpoints: dict[str, Path]) -> None:
    model = load(name if name == "tiny" else str(checkpoints[name]), device="cpu")
    tokens = model.encode(TEXT)
    texts = token_texts(model, tokens)
    assert len(texts) == len(tokens)
    shown = "".join(text for text in texts if text != PART)
    assert shown == model.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    if name == "tiny":
        assert TEXT in shown and texts.count(PART) > 5
        assert texts[texts.index(PART) - 1].strip() == "😀"


def test_a_character_that_is_cut_off_stays_unknown() -> None:
    model = load("tiny", device="cpu")
    tokens = model.encode("a 漢")
    assert token_texts(model, tokens)[-1] == PART
    assert "\ufffd" in "".join(token_texts(model, tokens[:-1]))
