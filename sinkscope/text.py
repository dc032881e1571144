"""Read text files, cut documents into passages of tokens, and decode tokens for display."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sinkscope.errors import TextError
from sinkscope.io.readers import MAX_CORPUS_BYTES, is_text, read_json, read_records, read_text
from sinkscope.models.characters import MAX_CHARACTER_TOKENS, REPLACEMENT
from sinkscope.models.model import Model

LOGGER = logging.getLogger("sinkscope")
MIN_TOKENS = 16
"""Passages and documents with fewer tokens are left out."""
CONTINUATION = "←"
"""Displayed for a token that continues the character of the token before it."""
HINT = "give a text in UTF-8"
TABLES = (".csv", ".tsv", ".parquet", ".arrow", ".xlsx")
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


def read_texts(path: Path, column: str = "text") -> list[str]:
    """The documents in a .txt file, in `column` of a .jsonl or .json file, or in a directory of .txt files.

    Files with other names are read as text, unless they are tables.

    Raises:
        TextError: the file is missing, empty, not UTF-8 or too large, a record lacks the column, or a text is
            a table or JSON.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise TextError(
            f"text {path} does not exist; give a .txt, .jsonl or .json file or a directory of .txt files"
        )
    if path.is_dir():
        texts = _read_directory(path)
    elif suffix in (".jsonl", ".ndjson", ".json"):
        read, unit = (read_json, "record") if suffix == ".json" else (read_records, "line")
        records = read(path, "text", TextError, HINT)
        texts = [_get_text(record, column, f"text {path}, {unit} {number}") for number, record in records]
    elif suffix in TABLES:
        raise TextError(f"text {path} is a table; write its column of texts as .jsonl, or as .txt files")
    else:
        texts = [_read_prose(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise TextError(f"text {path} is empty; give a file with text in it")
    return texts


def _read_prose(path: Path) -> str:
    """A text file; TextError if it has records."""
    text = read_text(path, "text", TextError, HINT)
    if text.lstrip().startswith(RECORDS):
        raise TextError(
            f"text {path} begins like JSON records, which would be measured with their braces; name it "
            ".jsonl or .json, or give the text itself"
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


def _get_text(record: dict[str, Any], column: str, label: str) -> str:
    text = record.get(column)
    if not isinstance(text, str):
        columns = ", ".join(record)[:200] or "none"
        raise TextError(
            f"{label} has no string in the column {column!r} (columns: {columns}); "
            "give the column with the text as `column`"
        )
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
    size = max_length - (model.tokenizer.bos_token_id is not None)
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
