"""Read text files from elsewhere within bounds; whatever is not plain text is refused in one line."""

from __future__ import annotations

import itertools
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sinkscope.errors import UserError, first_line

MAX_TEXT_BYTES = 64 * 2**20
"""Of a text file, and of one line of a jsonl file."""
MAX_CORPUS_BYTES = 2**30
"""Of a jsonl file, and of a table once it is unpacked."""
MAX_ROWS = 10**6
"""Of a file that is read line by line, and of a table: short lines take far more memory than bytes."""
MAX_RESULT_BYTES = 2**32
"""Of a table of results, or of all arrays in a file of results, once they are unpacked."""
MAX_CONFIG_BYTES = 2**20
"""Of a file that people write by hand: configuration, triggers."""
FILE_TYPES = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def check_file(
    path: Path, label: str, error_class: type[UserError], hint: str, limit: int = MAX_CORPUS_BYTES
) -> None:
    """Check that `path`, which is a `label` (a recipe), can be read to its end; `hint` says the fix.

    Raises:
        `error_class`: it is missing, is not a regular file (a pipe may never end), or exceeds `limit` bytes.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    else:
        problem = ""
        if not stat.S_ISREG(status.st_mode):
            problem = f"it is {FILE_TYPES.get(stat.S_IFMT(status.st_mode), 'a device')}, not a file"
        elif status.st_size > limit:
            problem = f"it has {status.st_size:,} bytes, more than {limit:,}"
    if problem:
        raise error_class(f"{label} {path} cannot be read: {problem}; {hint}")


def read_text(
    path: Path, label: str, error_class: type[UserError], hint: str, limit: int = MAX_TEXT_BYTES
) -> str:
    """The content of a UTF-8 file, without its byte order mark; arguments and errors as for `check_file`."""
    check_file(path, label, error_class, hint, limit)
    try:
        return decode_text(path.read_bytes())
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise error_class(f"{label} {path} cannot be read: {problem}; {hint}") from error


def read_records(
    path: Path, label: str, error_class: type[UserError], hint: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a UTF-8 jsonl file with their line numbers, from 1; empty lines are skipped.

    Raises:
        `error_class`: the file cannot be read (see `check_file`), or has too many lines; a line is too long,
            is not text, or is not a JSON object.
    """
    check_file(path, label, error_class, hint)
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(MAX_TEXT_BYTES + 1)  # only a line feed ends it: JSON has other separators
            if not line:
                return
            try:
                record = _parse_record(line, number, hint)
            except ValueError as error:
                raise error_class(f"{label} {path} cannot be read: {error}") from error
            if record is not None:
                yield number, record


def read_json(
    path: Path, label: str, error_class: type[UserError], hint: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a list in a JSON file with their indices, or of JSON lines with their line numbers.

    Raises:
        `error_class`: the file cannot be read (see `check_file`), or is neither.
    """
    text = read_text(path, label, error_class, hint)
    if not text.lstrip().startswith("["):
        yield from read_records(path, label, error_class, hint)
        return
    try:
        records = json.loads(text)
        if len(records) > MAX_ROWS:
            raise ValueError(f"it has {len(records):,} rows, more than {MAX_ROWS:,}")
        if not all(isinstance(record, dict) for record in records):
            raise ValueError("it must hold a list of objects with columns")
    except (ValueError, RecursionError) as error:
        raise error_class(f"{label} {path} cannot be read: {first_line(error)}; {hint}") from error
    yield from enumerate(records)


def _parse_record(line: bytes, number: int, hint: str) -> dict[str, Any] | None:
    if number > MAX_ROWS:
        raise ValueError(f"it has more than {MAX_ROWS:,} lines; give a part of it")
    if len(line) > MAX_TEXT_BYTES:
        raise ValueError(f"line {number} has more than {MAX_TEXT_BYTES:,} bytes; {hint}")
    try:
        text = decode_text(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}; {hint}") from error
    if not text.strip():
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number} is not JSON; correct or remove it") from error
    if not isinstance(record, dict):
        raise ValueError(f"line {number} is not an object with columns; correct or remove it")
    return record


def is_text(text: str) -> bool:
    """Whether a string can be encoded; a lone surrogate, which JSON can contain, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_text(content: bytes) -> str:
    """UTF-8 without a byte order mark; ValueError if it is not text."""
    if b"\0" in content:
        raise ValueError(f"it is not text (byte {content.index(0)} is NUL)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start}; `iconv -t UTF-8` converts)") from error
