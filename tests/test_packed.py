"""Passages in one array read like the lists they were made from, and come from texts line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkscope.errors import TextError
from sinkscope.text import read_texts
from sinkscope.token_sequences import TokenSequences

PASSAGES = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=6)


@given(PASSAGES, st.integers(-8, 8), st.slices(6))
def test_packed_passages_read_like_lists(passages: list[list[int]], index: int, part: slice) -> None:
    packed = TokenSequences(passages)
    assert list(packed) == passages and len(packed) == len(passages)
    assert packed[part] == passages[part]
    if -len(passages) <= index < len(passages):
        assert packed[index] == passages[index]
    else:
        with pytest.raises(IndexError):
            packed[index]


def test_a_line_of_jsonl_ends_with_its_newline_alone(tmp_path: Path) -> None:
    """Separators that Python also takes for the end of a line may stand in a text; the first byte may be a mark of order."""
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
