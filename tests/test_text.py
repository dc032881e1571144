"""Reading texts, storing passages in one array, and decoding tokens for display."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkscope.errors import TextError
from sinkscope.models.model import load
from sinkscope.text import CONTINUATION, TokenSequences, read_texts, token_texts

TEXT = "a road 😀 مرحبا “漢字” é"
PASSAGES = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=6)


@given(PASSAGES, st.integers(-8, 8), st.slices(6))
def test_token_sequences_read_like_lists(passages: list[list[int]], index: int, part: slice) -> None:
    stored = TokenSequences(passages)
    assert list(stored) == passages and len(stored) == len(passages)
    assert stored[part] == passages[part]
    if -len(passages) <= index < len(passages):
        assert stored[index] == passages[index]
    else:
        with pytest.raises(IndexError):
            stored[index]


def test_a_line_of_jsonl_ends_with_its_newline_alone(tmp_path: Path) -> None:
    """Other line separators of Python may occur in a text; the file may start with a byte order mark."""
    texts = ["one\u2028still one", "two\x0b\x85", "three"]
    path = tmp_path / "texts.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts).encode()
    )
    assert read_texts(path) == texts


def test_a_byte_that_is_not_utf_8_is_counted_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b'{"text": "fine"}\n{"text": "\xe9"}\n')
    with pytest.raises(TextError, match=r"line 2: it is not UTF-8 \(byte 10;"):
        read_texts(path)


@pytest.mark.parametrize("name", ["tiny", "llama"])
def test_tokens_of_one_character_are_displayed_as_one(name: str, checkpoints: dict[str, Path]) -> None:
    model = load(name if name == "tiny" else str(checkpoints[name]), device="cpu")
    tokens = model.encode(TEXT)
    texts = token_texts(model, tokens)
    assert len(texts) == len(tokens)
    displayed = "".join(text for text in texts if text != CONTINUATION)
    assert displayed == model.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    if name == "tiny":
        assert TEXT in displayed and texts.count(CONTINUATION) > 5
        assert texts[texts.index(CONTINUATION) - 1].strip() == "😀"


def test_a_character_that_is_cut_off_stays_unknown() -> None:
    model = load("tiny", device="cpu")
    tokens = model.encode("a 漢")
    assert token_texts(model, tokens)[-1] == CONTINUATION
    assert "\ufffd" in "".join(token_texts(model, tokens[:-1]))


RECORDS = [{"text": "a first text"}, {"text": "a second text"}]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps(RECORDS, indent=1)),
        ("lines.json", LINES),
        ("lines.ndjson", LINES),
        ("lines.JSONL", LINES),
    ],
)
def test_records_are_read_whatever_their_file_is_called(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_texts(tmp_path / name) == [record["text"] for record in RECORDS]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", "text,label\na,1\n", "is a table"),
        ("TABLE.TSV", "text\tlabel\n", "is a table"),
        ("lines.txt", LINES, "begins like JSON records"),
        ("list", json.dumps(RECORDS), "begins like JSON records"),
        ("texts.json", '["a first text"]', "must hold a list of objects"),
        ("broken.json", "[{", "cannot be read"),
    ],
)
def test_records_are_never_read_as_prose(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TextError, match=message):
        read_texts(tmp_path / name)
    if name == "lines.txt":
        with pytest.raises(TextError, match=message):
            read_texts(tmp_path)
