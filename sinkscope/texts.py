"""Text files of the user's (a .txt file, a .jsonl file with a `text` column, or a directory of .txt files), and tokens as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sinkscope.errors import TextError
from sinkscope.models import Model
from sinkscope.packed import Packed

MIN_TOKENS = 16


def read_texts(path: Path, column: str = "text") -> list[str]:
    """The documents in `path`: one per file, or one per line of a jsonl file.

    Raises:
        TextError: missing, empty, not UTF-8, or a jsonl line without the column.
    """
    if not path.exists():
        raise TextError(f"text {path} is not there; give a .txt or .jsonl file or a directory of .txt files")
    if path.is_dir():
        files = sorted(path.glob("*.txt"))
        if not files:
            raise TextError(f"directory {path} holds no .txt file; give one that does")
        texts = [_read(file) for file in files]
    elif path.suffix == ".jsonl":
        texts = _read_jsonl(path, column)
    else:
        texts = [_read(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise TextError(f"text {path} is empty; give a file with text in it")
    return texts


def cut(texts: Iterable[str], model: Model, max_length: int) -> Packed:
    """Passages of at most `max_length` tokens, BOS first, from each document in turn; remainders under 16 tokens are dropped.

    Raises:
        TextError: nothing is long enough.
    """
    if max_length < MIN_TOKENS:
        raise TextError(f"--max-length {max_length} is too short to show sinks; use at least {MIN_TOKENS}")
    check_readable(model, max_length)
    passages = Packed()
    longest = 0
    for text in texts:
        ids = model.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        size = max_length - (model.tokenizer.bos_token_id is not None)
        longest = max(longest, len(ids))
        for i in range(0, len(ids) - MIN_TOKENS + 1, size):
            passages.append(model.with_bos(ids[i : i + size]))
    if not passages:
        raise TextError(f"text is too short: its longest document has {longest} tokens, sinks need at least {MIN_TOKENS}; give a longer text")
    return passages


def check_readable(model: Model, max_length: int) -> None:
    """Whether the model has that many positions.

    Raises:
        TextError: it has fewer.
    """
    limit = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and max_length > limit:
        raise TextError(f"--max-length {max_length} is more than the {limit} tokens that model {model.name!r} can read; lower it")


def token_texts(model: Model, tokens: Sequence[int]) -> list[str]:
    """Each token as text, with the space that SentencePiece tokenizers drop from a token decoded by itself."""
    texts = [model.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in tokens]
    pieces = model.tokenizer.convert_ids_to_tokens(list(tokens))
    return [" " + text if piece.startswith("▁") and not text.startswith(" ") else text for piece, text in zip(pieces, texts, strict=True)]


def _read(path: Path) -> str:
    with _reading(path):
        return _decoded(path, path.read_bytes())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TextError(f"text {path} cannot be read: {error.strerror}; mend its permissions or give another") from error


def _decoded(path: Path, content: bytes, before: int = 0) -> str:
    """The text of `content`, which has `before` bytes of the file in front of it."""
    try:
        return content.decode("utf-8" if before else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"text {path} is not UTF-8 (byte {before + error.start}); convert it, as with iconv -t UTF-8") from error


def _read_jsonl(path: Path, column: str) -> list[str]:
    """Line by line, so that nothing is held but the column."""
    texts, before = [], 0
    with _reading(path), path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            line = _decoded(path, content, before)
            before += len(content)
            if line.strip():
                texts.append(_in_column(line, column, f"text {path}, line {number}"))
    return texts


def _in_column(line: str, column: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TextError(f"{where} is not JSON; mend or remove it") from error
    if not isinstance(record, dict) or not isinstance(record.get(column), str):
        found = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise TextError(f"{where} has no string in the column {column!r} (found: {found or 'nothing'}); rename the column")
    return record[column]
