"""Reading texts, storing passages in one array, and decoding tokens for display."""

from __future__ import annotations

import json
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkscope.errors import TextError
from sinkscope.models.model import load
from sinkscope.text import CONTINUATION, TokenSequences, token_texts
from sinkscope.text_sources import read_texts

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
        ("table.csv", 'label,text\n1,a first text\n,"a second text"\n'),
        ("TABLE.TSV", "text\tlabel\na first text\t\na second text\tNA\n"),
    ],
)
def test_records_are_read_whatever_their_file_is_called(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_texts(tmp_path / name) == [record["text"] for record in RECORDS]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", "body,label\na,1\n", r"row 0 has no string .* \(columns: body, label\)"),
        ("table.tsv", "text\tlabel\n", "is empty"),
        ("open.csv", 'text\n"a', "cannot be read"),
        ("comma.csv", "text\na first, with comma\n", "cannot be read: .*; give a table .* in quotes"),
        ("commas.csv", "text,label\na,1\nb, c,2\n", "cannot be read: .*; give a table .* in quotes"),
        ("table.xlsx", "PK", "is a table of another kind"),
        ("table.parquet", "text", "cannot be read"),
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


def test_tables_in_parquet_are_read_and_their_columns_named(tmp_path: Path) -> None:
    pd.DataFrame({"body": ["a first text", "a second text"], "n": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet", "body") == [record["text"] for record in RECORDS]
    with pytest.raises(TextError, match=r"a\.parquet has no string .* \(columns: body, n\)"):
        read_texts(tmp_path / "a.parquet")
    with pytest.raises(TextError, match=r"row 0 has no string in the column 'n'"):
        read_texts(tmp_path / "a.parquet", "n")


def test_quotes_line_breaks_and_na_in_a_table_are_text(tmp_path: Path) -> None:
    texts = ['a "quoted" word, and\na line', "NA", "null", "007", "日本"]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "a.csv", index=False)
    assert read_texts(tmp_path / "a.csv") == texts


def test_standard_input_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(TextError, match="it is closed"):
        read_texts("-")
    inputs = {
        b"a\0b": None,
        b"\xef\xbb\xbfa text\n": "a text\n",
        b"\xff": None,
        b" ": None,
        b'{"a": 1}': None,
    }
    for data, expected in inputs.items():
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data)))
        if expected:
            assert read_texts("-") == [expected]
        else:
            with pytest.raises(TextError):
                read_texts(Path("-"))


def test_a_split_of_a_data_set_is_read_like_one_on_the_hub(tmp_path: Path) -> None:
    """`datasets` reads a directory by its path as it reads a name on the hub."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text(LINES)
    assert read_texts(f"hub:{tmp_path / 'set'}:test") == [record["text"] for record in RECORDS]
    assert read_texts(f"hub:{tmp_path / 'set'}:test[1:]") == ["a second text"]
    assert read_texts(f"hub:{tmp_path / 'set'}:default:test[:1]") == ["a first text"]
    with pytest.raises(TextError, match="cannot be fetched"):
        read_texts(f"hub:{tmp_path / 'set'}:train")
    with pytest.raises(TextError, match=r"no string in the column 'body' \(columns: text\)"):
        read_texts(f"hub:{tmp_path / 'set'}:test", "body")
    for source in ("hub:name", "hub::train", "hub:name:train[", "hub:a:b:c:d"):
        with pytest.raises(TextError, match="is not hub:NAME:SPLIT"):
            read_texts(source)
