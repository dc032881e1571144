"""Benchmarks in a local directory: `config/split.jsonl` (.json, .parquet), and optional settings."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from sinkscope.benchmarks.splits import (
    CHUNKINGS,
    COLUMNS,
    MUSE,
    SCORED,
    Chunking,
    Lengths,
    Record,
    Rows,
    known_splits,
    required_columns,
    required_splits,
    validate_records,
)
from sinkscope.errors import BenchmarkError, first_line
from sinkscope.io.readers import (
    MAX_CONFIG_BYTES,
    MAX_CORPUS_BYTES,
    MAX_ROWS,
    MAX_TEXT_BYTES,
    check_file,
    read_records,
    read_text,
)
from sinkscope.io.tables import read_parquet_records

SUFFIXES = (".jsonl", ".json", ".parquet")
SETTINGS_FILE = "benchmark.json"
LENGTH_LIMITS = {
    "passage": (2, 1_000_000),
    "in_context": (0, 1000),
    "knowmem_new": (1, 100_000),
    "verbmem_new": (1, 100_000),
}
"""Smallest and largest value of each length."""


def read_directory(directory: Path, name: str) -> tuple[Rows, Lengths, Chunking]:
    """All splits in `directory`.

    Raises:
        BenchmarkError: a split or column is missing, or a file is damaged; the message lists the available
            ones.
    """
    lengths, chunking = _read_settings(directory / SETTINGS_FILE)
    files = _list_files(directory)
    available = ", ".join(sorted(path.relative_to(directory).as_posix() for path in files.values())) or "none"
    present = {
        config for config in COLUMNS if any((config, split) in files for split in known_splits(config))
    }
    for config in COLUMNS:
        for split in required_splits(config, lengths.in_context) if config in {"raw", *present} else ():
            if (config, split) not in files:
                raise BenchmarkError(
                    f"benchmark {name} lacks {config}/{split}.jsonl (.json, .parquet); its files: {available}"
                )
    if not present & set(SCORED):
        raise BenchmarkError(
            f"benchmark {name} has nothing to score; give one of {', '.join(SCORED)}; its files: {available}"
        )
    rows: Rows = {
        config: {
            split: _read_split(files[config, split], required_columns(config, chunking))
            for split in known_splits(config)
            if (config, split) in files
        }
        for config in COLUMNS
        if config in present
    }
    return rows, lengths, chunking


def _list_files(directory: Path) -> dict[tuple[str, str], Path]:
    """The file of each (configuration, split); of several formats the first in `SUFFIXES`."""
    return {
        (path.parent.name, path.stem): path
        for suffix in reversed(SUFFIXES)
        for path in directory.glob(f"*/*{suffix}")
    }


def _read_split(path: Path, columns: tuple[str, ...]) -> list[Record]:
    hint = f"write it again as {path.suffix[1:]}"
    if path.suffix == ".jsonl":
        lines = (record for _, record in read_records(path, "benchmark file", BenchmarkError, hint))
        first = list(itertools.islice(lines, 1))
        return validate_records(str(path), columns, _columns(first), itertools.chain(first, lines))
    is_parquet = path.suffix == ".parquet"
    limit = MAX_CORPUS_BYTES if is_parquet else MAX_TEXT_BYTES
    check_file(path, "benchmark file", BenchmarkError, hint, limit)
    try:
        available, records = read_parquet_records(path, columns) if is_parquet else _read_json(path)
    except Exception as error:  # libraries raise errors of many types for damaged files
        raise BenchmarkError(f"benchmark file {path} cannot be read: {first_line(error)}; {hint}") from error
    return validate_records(str(path), columns, available, records)


def _read_json(path: Path) -> tuple[list[str], list[Record]]:
    records = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError("it must hold a list of records")
    _check_rows(len(records))
    return _columns(records), records


def _check_rows(count: int) -> None:
    if count > MAX_ROWS:
        raise ValueError(f"it has {count:,} rows, more than {MAX_ROWS:,}")


def _columns(records: list[Record]) -> list[str]:
    return list(dict.fromkeys(column for record in records for column in record))


def _read_settings(path: Path) -> tuple[Lengths, Chunking]:
    """Lengths and chunking; MUSE's where the file does not set them, or does not exist."""
    if not path.exists() and not path.is_symlink():
        return MUSE, "joined"
    text = read_text(path, "benchmark file", BenchmarkError, "correct or remove it", MAX_CONFIG_BYTES)
    try:
        settings: dict[str, Any] = json.loads(text)
        lengths = Lengths(**settings.get("lengths", {}))
        chunking = settings.get("chunking", settings.get("cut", "joined"))  # `cut`: the key's former name
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BenchmarkError(
            f'{path} must hold {{"lengths": {{"passage": 64, …}}, "chunking": "joined"}}, with lengths among '
            f"{', '.join(LENGTH_LIMITS)}; correct or remove it"
        ) from error
    for name, (low, high) in LENGTH_LIMITS.items():
        value = getattr(lengths, name)
        if type(value) is not int or not low <= value <= high:
            raise BenchmarkError(
                f"{path}: {name} must be a whole number from {low} to {high:,}, not {str(value)[:80]!r}"
            )
    if chunking not in CHUNKINGS:
        raise BenchmarkError(
            f"{path}: chunking {str(chunking)[:80]!r} is unknown; use {', '.join(CHUNKINGS)}"
        )
    return lengths, chunking
