"""Files that people give: read within bounds, and refused in one line where they are no plain text."""

from __future__ import annotations

import itertools
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sinkscope.errors import UserError

MAX_TEXT_BYTES = 64 * 2**20
"""Bytes of the longest text, and of the longest line of a jsonl file."""
MAX_CORPUS_BYTES = 2**30
"""Bytes of the largest jsonl file."""
MAX_ROWS = 10**6
"""Lines of the longest text that is read by lines, and rows of the longest table: small ones take far more memory than bytes."""
MAX_RESULT_BYTES = 2**32
"""Bytes that a table of results, or all arrays that are read of them at once, may stand for: a small file can stand for huge ones."""
MAX_CONFIG_BYTES = 2**20
"""Bytes of the largest file of keys, values or triggers, which people write by hand."""


def check_file(
    path: Path, what: str, kind: type[UserError], mend: str, limit: int = MAX_CORPUS_BYTES
) -> None:
    """Whether `path` can be read to its end.

    Raises:
        `kind`: it is not there, is no regular file (a pipe or a device may never end), or has more than `limit` bytes.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise kind(
            f"{what} {path} cannot be read: {getattr(error, 'strerror', None) or error}; {mend}"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise kind(
            f"{what} {path} cannot be read: it is {kinds.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file; {mend}"
        )
    if found.st_size > limit:
        raise kind(
            f"{what} {path} cannot be read: it has {found.st_size:,} bytes, more than {limit:,}; {mend}"
        )


def read_text(path: Path, what: str, kind: type[UserError], mend: str, limit: int = MAX_TEXT_BYTES) -> str:
    """A whole file of UTF-8 text, without its BOM.

    Raises:
        `kind`: it cannot be read (see `check_file`) or is no text.
    """
    check_file(path, what, kind, mend, limit)
    try:
        return _decoded(path.read_bytes())
    except (OSError, ValueError) as error:
        raise kind(
            f"{what} {path} cannot be read: {getattr(error, 'strerror', None) or error}; {mend}"
        ) from error


def read_lines(
    path: Path, what: str, kind: type[UserError], mend: str, limit: int = MAX_CORPUS_BYTES
) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text one by one, with their numbers from 1. Only a line feed ends one: JSON may hold all others.

    Raises:
        `kind`: the file cannot be read (see `check_file`), or a line is no text or too long, or there are too many.
    """
    check_file(path, what, kind, mend, limit)
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(MAX_TEXT_BYTES + 1)
            if not line:
                return
            if number > MAX_ROWS:
                raise kind(
                    f"{what} {path} cannot be read: it has more than {MAX_ROWS:,} lines; give a part of it"
                )
            if len(line) > MAX_TEXT_BYTES:
                raise kind(
                    f"{what} {path} cannot be read: line {number} has more than {MAX_TEXT_BYTES:,} bytes; {mend}"
                )
            try:
                yield number, _decoded(line)
            except ValueError as error:
                raise kind(f"{what} {path} cannot be read: line {number}: {error}; {mend}") from error


def read_records(
    path: Path, what: str, kind: type[UserError], mend: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in a jsonl file, with their lines' numbers; empty lines are passed over.

    Raises:
        `kind`: the file cannot be read (see `read_lines`), or a line is no JSON object.
    """
    for number, line in read_lines(path, what, kind, mend):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise kind(
                f"{what} {path} cannot be read: line {number} is not JSON; mend or remove it"
            ) from error
        if not isinstance(record, dict):
            raise kind(
                f"{what} {path} cannot be read: line {number} is no object with columns; mend or remove it"
            )
        yield number, record


def is_text(text: str) -> bool:
    """Whether a string stands for characters: half of a surrogate pair, which JSON can write, does not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(content: bytes) -> str:
    if b"\0" in content:
        raise ValueError(f"it is not text (byte {content.index(0)} is NUL)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start}; `iconv -t UTF-8` converts)") from error
