"""Read texts and chats from files, directories, data sets on the hub and standard input."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.errors import TextError, first_line
from sinkscope.io.progress import quiet_loggers
from sinkscope.io.readers import (
    MAX_CORPUS_BYTES,
    MAX_ROWS,
    MAX_TEXT_BYTES,
    check_file,
    decode_text,
    is_text,
    read_json,
    read_records,
    read_text,
)
from sinkscope.io.tables import read_parquet_records
from sinkscope.models.chat import ROLES, Message

HINT = "give a text in UTF-8"
SOURCES = "a .txt, .md, .jsonl, .json, .csv, .tsv or .parquet file, or a directory of .txt files"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
OTHER_TABLES = (".arrow", ".feather", ".xlsx")
STDIN = "-"
HUB = "hub:"
HUB_SOURCE = re.compile(
    r"hub:(?P<name>[^:\[\]]+)(:(?P<config>[^:\[\]]+))?:(?P<split>[\w.+-]+(\[[^\[\]]*\])?)"
)
PART = "give a part of it"
MESSAGES = "messages"
"""The column with the messages of a chat."""
STRINGS = ("string", "large_string")
RECORDS = ('{"', '[{"', "[{'")
"""What a file of records begins with."""


def read_texts(source: Path | str, column: str = "text") -> list[str]:
    """The documents of a source of texts.

    Args:
        source: a text file, which is one document; a .jsonl, .json, .csv, .tsv or .parquet file with a
            document in `column` of each record; a directory of .txt files; `hub:NAME:SPLIT` or
            `hub:NAME:CONFIG:SPLIT`, a data set on the Hugging Face hub; or `-`, standard input, one document.

    Raises:
        TextError: the source is missing, empty, not UTF-8 or too large, a record lacks the column, a text is
            JSON, or the data set cannot be fetched.
    """
    label = f"text {source}"
    documents = _read_source(source, [column])
    texts = [each if isinstance(each, str) else _get_text(each, column, label) for each in documents]
    return _without_empty(texts, label)


def read_chats(source: Path | str, column: str = "text") -> list[str | list[Message]]:
    """As `read_texts`, but records with `messages` are chats: lists of messages with `role` and `content`.

    Raises:
        TextError: as `read_texts`, or a message has an unknown role or no text.
    """
    label = f"text {source}"
    chats: list[str | list[Message]] = []
    for each in _read_source(source, [column, MESSAGES]):
        if isinstance(each, str):
            chats.append(each)
        elif each.values.get(MESSAGES) is not None:
            chats.append(_get_messages(each, label))
        else:
            chats.append(_get_text(each, column, label))
    return _without_empty(chats, label)


@dataclass(frozen=True)
class _Record:
    """A record, and its name in the source, as `line 3`."""

    name: str
    values: dict[str, Any]


def _without_empty(documents: list[Any], label: str) -> list[Any]:
    documents = [each for each in documents if not isinstance(each, str) or each.strip()]
    if not documents:
        raise TextError(f"{label} is empty; give one with text in it")
    return documents


def _read_source(source: Path | str, columns: Sequence[str]) -> Iterable[str | _Record]:
    """The documents of a source, as texts or as records."""
    label, path = f"text {source}", Path(source)
    if str(source) == STDIN:
        return [_check_prose(_read_stdin(), label)]
    if str(source).startswith(HUB):
        return _number_rows(_fetch_records(str(source), columns))
    if not path.exists():
        raise TextError(f"{label} does not exist; give {SOURCES}")
    if path.is_dir():
        return _read_directory(path)
    records = _read_records(path, columns)
    return [_read_prose(path)] if records is None else records


def _read_records(path: Path, columns: Sequence[str]) -> Iterable[_Record] | None:
    """The records of a file; None if it is of prose."""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        lines = read_records(path, "text", TextError, HINT)
        return (_Record(f"line {number}", record) for number, record in lines)
    if suffix == ".json":
        return (_Record(f"record {n}", record) for n, record in read_json(path, "text", TextError, HINT))
    if suffix in SEPARATORS:
        return _number_rows(_read_table(path, SEPARATORS[suffix]))
    if suffix == ".parquet":
        return _number_rows(_read_parquet(path, columns))
    if suffix in OTHER_TABLES:
        raise TextError(f"text {path} is a table of another kind; write it as .parquet, .csv or .jsonl")
    return None


def _number_rows(rows: Iterable[dict[str, Any]]) -> Iterator[_Record]:
    return (_Record(f"row {number}", row) for number, row in enumerate(rows))


def _read_table(path: Path, separator: str) -> Iterator[dict[str, Any]]:
    check_file(path, "text", TextError, PART, MAX_TEXT_BYTES)
    text = read_text(path, "text", TextError, HINT)
    try:
        with warnings.catch_warnings():
            # of a first row with more fields than columns
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                StringIO(text),
                sep=separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                nrows=MAX_ROWS + 1,
            )
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:  # pandas's errors are ValueErrors
        raise TextError(
            f"text {path} cannot be read: {first_line(error)}; give a table with a header, and texts with "
            f"{separator!r} or line breaks in quotes"
        ) from error
    if len(table) > MAX_ROWS:
        raise TextError(f"text {path} has more than {MAX_ROWS:,} rows; {PART}")
    return (dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False, name=None))


def _read_parquet(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    check_file(path, "text", TextError, PART)
    try:
        names, rows = read_parquet_records(path, columns)
    except Exception as error:  # libraries raise errors of many types for damaged files
        raise TextError(
            f"text {path} cannot be read: {first_line(error)}; give a table of texts in parquet, or a part"
        ) from error
    if not set(columns) & set(names):
        raise TextError(_describe_missing(f"text {path}", columns[0], names))
    return rows


def _fetch_records(source: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The records of a data set on the hub, or in a directory."""
    from datasets import load_dataset

    match = HUB_SOURCE.fullmatch(source)
    if not match:
        raise TextError(
            f"text {source} is not {HUB}NAME:SPLIT or {HUB}NAME:CONFIG:SPLIT; write it like "
            f"{HUB}Salesforce/wikitext:wikitext-2-raw-v1:test, or test[:100] for a part of it"
        )
    try:
        with quiet_loggers("datasets"):
            data = load_dataset(match["name"], match["config"], split=match["split"])
    except Exception as error:  # of many types: the connection, the name, the split
        raise TextError(
            f"text {source} cannot be fetched: {first_line(error)[:300]}; check the connection, the name, "
            "the configuration and the split"
        ) from error
    is_chat = MESSAGES in columns and MESSAGES in data.column_names
    if not is_chat and getattr(data.features.get(columns[0]), "dtype", "") not in STRINGS:
        raise TextError(_describe_missing(f"text {source}", columns[0], data.column_names))
    if len(data) > MAX_ROWS:
        raise TextError(
            f"text {source} has {len(data):,} rows, more than {MAX_ROWS:,}; give a part, as in "
            f"{source.partition('[')[0]}[:1000]"
        )
    records, size = [], 0
    for record in data.select_columns([name for name in columns if name in data.column_names]):
        size += sum(len(str(value)) for value in record.values())
        if size > MAX_CORPUS_BYTES:
            raise TextError(f"text {source} has more than {MAX_CORPUS_BYTES:,} characters; {PART}")
        records.append(record)
    return records


def _read_stdin() -> str:
    try:
        if sys.stdin is None:
            raise ValueError("it is closed")
        data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError(f"it has more than {MAX_TEXT_BYTES:,} bytes")
        return decode_text(data)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise TextError(f"standard input cannot be read: {problem}; {HINT}") from error


def _read_prose(path: Path) -> str:
    """A text file; TextError if it has records."""
    return _check_prose(read_text(path, "text", TextError, HINT), f"text {path}")


def _check_prose(text: str, label: str) -> str:
    if text.lstrip().startswith(RECORDS):
        raise TextError(
            f"{label} begins like JSON records, which would be measured with their braces; give a file named "
            ".jsonl or .json, or the text itself"
        )
    return text


def _read_directory(directory: Path) -> list[str]:
    texts: list[str] = []
    size = 0
    for file in sorted(directory.glob("*.txt")):
        texts.append(_read_prose(file))
        size += len(texts[-1])
        if size > MAX_CORPUS_BYTES:
            raise TextError(
                f"directory {directory} has texts of more than {MAX_CORPUS_BYTES:,} characters; give a part "
                "of them"
            )
    if not texts:
        raise TextError(f"directory {directory} has no .txt file; give one that does")
    return texts


def _describe_missing(label: str, column: str, columns: Iterable[str]) -> str:
    names = ", ".join(map(str, columns))[:200] or "none"
    return f"{label} has no string in the column {column!r} (columns: {names}); " + (
        "read chats with `chat`" if MESSAGES in columns else "give the column with the text as `column`"
    )


def _get_text(record: _Record, column: str, label: str) -> str:
    label = f"{label}, {record.name}"
    text = record.values.get(column)
    if not isinstance(text, str):
        raise TextError(_describe_missing(label, column, record.values))
    return _check_characters(text, f"{label} has half of a surrogate pair in the column {column!r}")


def _check_characters(text: str, problem: str) -> str:
    if not is_text(text):
        raise TextError(f"{problem}, which is not a character; remove it")
    return text


def _get_messages(record: _Record, label: str) -> list[Message]:
    label = f"{label}, {record.name}"
    rows = record.values[MESSAGES]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise TextError(f"{label}: `{MESSAGES}` is not a list of messages; give each a role and content")
    messages = []
    for number, row in enumerate(rows):
        role, content = row.get("role"), row.get("content")
        if role not in ROLES:
            raise TextError(
                f"{label}, message {number} has the role {str(role)[:40]!r}; use {', '.join(ROLES)}"
            )
        if not isinstance(content, str):
            raise TextError(f"{label}, message {number} has no text as its content; give it one")
        problem = f"{label}, message {number} has half of a surrogate pair"
        messages.append({"role": role, "content": _check_characters(content, problem)})
    if not any(message["role"] == "user" for message in messages):
        raise TextError(f"{label} has no message of the user; give it one")
    return messages
