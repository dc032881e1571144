"""Read text files, cut documents into passages of tokens, and decode tokens for display."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from array import array
from collections.abc import Iterable, Iterator, Sequence
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
from sinkscope.models.characters import MAX_CHARACTER_TOKENS, REPLACEMENT
from sinkscope.models.model import Model

LOGGER = logging.getLogger("sinkscope")
MIN_TOKENS = 16
"""Passages and documents with fewer tokens are left out."""
CONTINUATION = "←"
"""Displayed for a token that continues the character of the token before it."""
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
RECORDS = ('{"', '[{"', "[{'")
"""What a file of records begins with."""


class TokenSequences(Sequence[list[int]]):
    """Token ids of many passages, four bytes per token; reads like a list of lists."""

    def __init__(self, passages: Iterable[Sequence[int]] = ()) -> None:
        self._tokens = array("i")
        self._ends = array("q", [0])
        for passage in passages:
            self.append(passage)

    def append(self, passage: Sequence[int]) -> None:
        self._tokens.extend(passage)
        self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._tokens[self._ends[number] : self._ends[number + 1]].tolist()


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
    label, path = f"text {source}", Path(source)
    if str(source) == STDIN:
        texts = [_check_prose(_read_stdin(), label)]
    elif str(source).startswith(HUB):
        texts = _get_texts(_number_rows(_fetch_records(str(source), column)), column, label)
    elif not path.exists():
        raise TextError(f"{label} does not exist; give {SOURCES}")
    elif path.is_dir():
        texts = _read_directory(path)
    elif (records := _read_records(path, column)) is not None:
        texts = _get_texts(records, column, label)
    else:
        texts = [_read_prose(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise TextError(f"{label} is empty; give one with text in it")
    return texts


def _read_records(path: Path, column: str) -> Iterable[tuple[str, dict[str, Any]]] | None:
    """The records of a file, each with its name in the file (`line 3`); None if it is of prose."""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        lines = read_records(path, "text", TextError, HINT)
        return ((f"line {number}", record) for number, record in lines)
    if suffix == ".json":
        return ((f"record {n}", record) for n, record in read_json(path, "text", TextError, HINT))
    if suffix in SEPARATORS:
        return _number_rows(_read_table(path, SEPARATORS[suffix]))
    if suffix == ".parquet":
        return _number_rows(_read_parquet(path, column))
    if suffix in OTHER_TABLES:
        raise TextError(f"text {path} is a table of another kind; write it as .parquet, .csv or .jsonl")
    return None


def _number_rows(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its name, as `row 0`."""
    return ((f"row {number}", row) for number, row in enumerate(rows))


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


def _read_parquet(path: Path, column: str) -> list[dict[str, Any]]:
    check_file(path, "text", TextError, PART)
    try:
        names, rows = read_parquet_records(path, [column])
    except Exception as error:  # libraries raise errors of many types for damaged files
        raise TextError(
            f"text {path} cannot be read: {first_line(error)}; give a table of texts in parquet, or a part"
        ) from error
    if column not in names:
        raise TextError(_describe_missing(f"text {path}", column, names))
    return rows


def _fetch_records(source: str, column: str) -> list[dict[str, Any]]:
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
    if getattr(data.features.get(column), "dtype", "") not in ("string", "large_string"):
        raise TextError(_describe_missing(f"text {source}", column, data.column_names))
    if len(data) > MAX_ROWS:
        raise TextError(
            f"text {source} has {len(data):,} rows, more than {MAX_ROWS:,}; give a part, as in "
            f"{source.partition('[')[0]}[:1000]"
        )
    records, size = [], 0
    for record in data.select_columns([column]):
        size += len(record[column]) if isinstance(record[column], str) else 0
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
    return (
        f"{label} has no string in the column {column!r} (columns: {names}); "
        "give the column with the text as `column`"
    )


def _get_texts(records: Iterable[tuple[str, dict[str, Any]]], column: str, label: str) -> list[str]:
    return [_get_text(record, column, f"{label}, {name}") for name, record in records]


def _get_text(record: dict[str, Any], column: str, label: str) -> str:
    text = record.get(column)
    if not isinstance(text, str):
        raise TextError(_describe_missing(label, column, record))
    if not is_text(text):
        raise TextError(
            f"{label} has half of a surrogate pair in the column {column!r}, which is not a character; "
            "remove it"
        )
    return text


def tokenize_passages(
    texts: Iterable[str], model: Model, max_length: int, label: str = "text"
) -> TokenSequences:
    """Cut documents into passages of at most `max_length` tokens, BOS included, in their order.

    A passage never spans two documents. Remainders of fewer than `MIN_TOKENS` tokens are left out. Error
    messages call the texts `label`.

    Raises:
        TextError: no document is long enough, the model cannot read `max_length` tokens, or `texts`
            is one string.
    """
    if isinstance(texts, str):
        raise TextError(
            "`texts` is a single string; give a list of texts, as in tokenize_passages([text], model, 64)"
        )
    if max_length < MIN_TOKENS:
        raise TextError(f"`max_length` {max_length} is too short to measure sinks; use at least {MIN_TOKENS}")
    check_max_length(model, max_length)
    size = max_length - (model.bos_id is not None)
    passages = TokenSequences()
    lengths = []
    for text in texts:
        ids = model.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        lengths.append(len(ids))
        for start in range(0, len(ids) - MIN_TOKENS + 1, size):
            passages.append(model.with_bos(ids[start : start + size]))
    if not passages:
        raise TextError(
            f"{label} is too short: its longest document has {max(lengths, default=0)} tokens, "
            f"at least {MIN_TOKENS} are needed; give a longer text"
        )
    if n_short := sum(length < MIN_TOKENS for length in lengths):
        LOGGER.warning(
            "%d of %d documents have fewer than %d tokens and are left out", n_short, len(lengths), MIN_TOKENS
        )
    return passages


def check_max_length(model: Model, max_length: int) -> None:
    """Raise TextError if the model cannot read that many tokens."""
    limit = model.max_positions
    if limit is not None and max_length > limit:
        raise TextError(
            f"`max_length` {max_length} is more than the {limit} tokens that model {model.name!r} can read; "
            "lower it"
        )


def token_texts(model: Model, tokens: Sequence[int]) -> list[str]:
    """Decode each token by itself, with the leading space that SentencePiece drops from a single token.

    If several tokens form one character, the first gets the character and the others get `CONTINUATION`.
    """

    def decode(part: Sequence[int]) -> str:
        return model.tokenizer.decode(list(part), clean_up_tokenization_spaces=False)

    texts = [decode([token]) for token in tokens]
    for start, text in enumerate(texts):
        if REPLACEMENT not in text:
            continue
        for stop in range(start + 2, min(start + MAX_CHARACTER_TOKENS, len(texts)) + 1):
            joined = decode(tokens[start:stop])
            if REPLACEMENT not in joined:
                texts[start:stop] = [joined, *[CONTINUATION] * (stop - start - 1)]
                break
    pieces = model.tokenizer.convert_ids_to_tokens(list(tokens))
    return [
        " " + text if (piece or "").startswith("▁") and not text.startswith(" ") else text
        for piece, text in zip(pieces, texts, strict=True)
    ]
