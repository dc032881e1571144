"""Text files of the user's (a .txt file, a .jsonl file with a `text` column, or a directory of .txt files), and tokens as text."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from sinkscope.errors import TextError
from sinkscope.io.readers import MAX_CORPUS_BYTES, is_text, read_records, read_text
from sinkscope.models.model import Model
from sinkscope.token_sequences import TokenSequences

LOGGER = logging.getLogger("sinkscope")
MIN_TOKENS = 16
MEND = "give a text in UTF-8"
UNKNOWN, PART = "\ufffd", "←"
"""What a part of a character is decoded to, and how it is shown behind the token that has the character."""
MOST_PARTS = 8
"""Tokens of a character, or of several that share tokens."""


def read_texts(path: Path, column: str = "text") -> list[str]:
    """The documents in `path`: one per file, or one per line of a jsonl file.

    Raises:
        TextError: missing, empty, no UTF-8 text, too large to be one, or a jsonl line without the column.
    """
    if not path.exists():
        raise TextError(f"text {path} is not there; give a .txt or .jsonl file or a directory of .txt files")
    if path.is_dir():
        files = sorted(path.glob("*.txt"))
        if not files:
            raise TextError(f"directory {path} holds no .txt file; give one that does")
        texts = _read_files(path, files)
    elif path.suffix == ".jsonl":
        texts = _read_jsonl(path, column)
    else:
        texts = [read_text(path, "text", TextError, MEND)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise TextError(f"text {path} is empty; give a file with text in it")
    return texts


def tokenize_passages(
    texts: Iterable[str], model: Model, max_length: int, what: str = "text"
) -> TokenSequences:
    """Passages of at most `max_length` tokens, BOS first, from each document in turn; remainders under 16 tokens are dropped.

    Args:
        what: what the texts are called where they are refused.

    Raises:
        TextError: nothing is long enough, or a single string is given.
    """
    if isinstance(texts, str):
        raise TextError(
            "one string would be read as a list of its letters; give a list of texts, as in cut([text], model, 64)"
        )
    if max_length < MIN_TOKENS:
        raise TextError(f"--max-length {max_length} is too short to show sinks; use at least {MIN_TOKENS}")
    check_readable(model, max_length)
    passages = TokenSequences()
    longest = short = documents = 0
    for text in texts:
        ids = model.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        size = max_length - (model.tokenizer.bos_token_id is not None)
        longest, short, documents = max(longest, len(ids)), short + (len(ids) < MIN_TOKENS), documents + 1
        for i in range(0, len(ids) - MIN_TOKENS + 1, size):
            passages.append(model.with_bos(ids[i : i + size]))
    if not passages:
        raise TextError(
            f"{what} is too short: its longest document has {longest} tokens, sinks need at least {MIN_TOKENS}; give a longer text"
        )
    if short:
        LOGGER.warning(
            "%d of %d documents have fewer than %d tokens and are left out", short, documents, MIN_TOKENS
        )
    return passages


def check_readable(model: Model, max_length: int) -> None:
    """Whether the model has that many positions.

    Raises:
        TextError: it has fewer.
    """
    limit = model.max_positions
    if limit is not None and max_length > limit:
        raise TextError(
            f"--max-length {max_length} is more than the {limit} tokens that model {model.name!r} can read; lower it"
        )


def token_texts(model: Model, tokens: Sequence[int]) -> list[str]:
    """Each token as text, with the space that SentencePiece tokenizers drop from a token decoded by itself. Of tokens that are parts of one character the first
    has it, and the others are `PART`."""
    texts = [model.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in tokens]
    for start, text in enumerate(texts):
        for stop in range(start + 2, min(start + MOST_PARTS, len(texts)) + 1) if UNKNOWN in text else ():
            whole = model.tokenizer.decode(list(tokens[start:stop]), clean_up_tokenization_spaces=False)
            if UNKNOWN not in whole:
                texts[start:stop] = [whole, *[PART] * (stop - start - 1)]
                break
    pieces = model.tokenizer.convert_ids_to_tokens(list(tokens))
    return [
        " " + text if piece.startswith("▁") and not text.startswith(" ") else text
        for piece, text in zip(pieces, texts, strict=True)
    ]


def _read_files(directory: Path, files: Sequence[Path]) -> list[str]:
    texts, size = [], 0
    for file in files:
        texts.append(read_text(file, "text", TextError, MEND))
        size += len(texts[-1])
        if size > MAX_CORPUS_BYTES:
            raise TextError(
                f"directory {directory} holds texts of more than {MAX_CORPUS_BYTES:,} characters; give a part of them"
            )
    return texts


def _read_jsonl(path: Path, column: str) -> list[str]:
    texts = []
    for number, record in read_records(path, "text", TextError, MEND):
        if not isinstance(record.get(column), str):
            found = ", ".join(record)[:200] or "nothing"
            raise TextError(
                f"text {path}, line {number} has no string in the column {column!r} (found: {found}); rename the column"
            )
        if not is_text(record[column]):
            raise TextError(
                f"text {path}, line {number} has half of a surrogate pair in the column {column!r}, which is no character; remove it"
            )
        texts.append(record[column])
    return texts
