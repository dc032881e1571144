"""Benchmarks from a local directory: `config/split.jsonl` (or .json, .parquet), and `benchmark.json`, which says how they are cut and asked."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from sinkscope.benchmarks.schema import (
    COLUMNS,
    CUTS,
    MUSE,
    SCORED,
    Cut,
    Lengths,
    Record,
    Rows,
    checked,
    columns_of,
    required,
    splits_of,
)
from sinkscope.errors import BenchmarkError, first_line
from sinkscope.io import parquet
from sinkscope.io.readers import (
    MAX_CONFIG_BYTES,
    MAX_CORPUS_BYTES,
    MAX_ROWS,
    MAX_TEXT_BYTES,
    check_file,
    read_records,
    read_text,
)

SUFFIXES = (".jsonl", ".json", ".parquet")
SETTINGS_FILE = "benchmark.json"
PIECE = 64
"""Rows of a parquet file that are read at once."""
LIMITS = {
    "passage": (2, 1_000_000),
    "in_context": (0, 1000),
    "knowmem_new": (1, 100_000),
    "verbmem_new": (1, 100_000),
}
"""Lowest and highest of each length."""


def read_directory(directory: Path, name: str) -> tuple[Rows, Lengths, Cut]:
    """All splits that lie in `directory`.

    Raises:
        BenchmarkError: a split or column is missing, or a file is damaged; the message lists what was found.
    """
    lengths, cut = _settings(directory / SETTINGS_FILE)
    files = {
        path.relative_to(directory).with_suffix("").as_posix(): path
        for suffix in reversed(SUFFIXES)
        for path in directory.glob(f"*/*{suffix}")
    }
    found = ", ".join(sorted(path.relative_to(directory).as_posix() for path in files.values())) or "nothing"
    there = {config for config in COLUMNS for split in splits_of(config) if f"{config}/{split}" in files}
    for config in [config for config in COLUMNS if config in {"raw", *there}]:
        for split in required(config, lengths.in_context):
            if f"{config}/{split}" not in files:
                raise BenchmarkError(
                    f"benchmark {name} lacks {config}/{split}.jsonl (or .json, .parquet); found: {found}"
                )
    if not there & set(SCORED):
        raise BenchmarkError(
            f"benchmark {name} has nothing to score; give one of {', '.join(SCORED)}; found: {found}"
        )
    rows: Rows = {
        config: {
            split: _read(files[f"{config}/{split}"], columns_of(config, cut))
            for split in splits_of(config)
            if f"{config}/{split}" in files
        }
        for config in COLUMNS
        if config in there
    }
    return rows, lengths, cut


def _read(path: Path, columns: tuple[str, ...]) -> list[Record]:
    mend = f"write it again as {path.suffix[1:]}"
    if path.suffix == ".jsonl":
        lines = (record for _, record in read_records(path, "benchmark file", BenchmarkError, mend))
        first = list(itertools.islice(lines, 1))
        return checked(str(path), columns, _names(first), itertools.chain(first, lines))
    check_file(
        path,
        "benchmark file",
        BenchmarkError,
        mend,
        MAX_CORPUS_BYTES if path.suffix == ".parquet" else MAX_TEXT_BYTES,
    )
    try:
        found, records = _from_parquet(path, columns) if path.suffix == ".parquet" else _from_json(path)
    except (
        Exception
    ) as error:  # a file from anywhere, and libraries that say what is wrong with it in many types
        raise BenchmarkError(f"benchmark file {path} cannot be read: {first_line(error)}; {mend}") from error
    return checked(str(path), columns, found, records)


def _from_json(path: Path) -> tuple[list[str], list[Record]]:
    records = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError("it is no list of records")
    _check_rows(len(records))
    return _names(records), records


def _from_parquet(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[Record]]:
    from pyarrow.parquet import read_metadata

    footer = read_metadata(path)
    _check_rows(footer.num_rows)
    return footer.schema.to_arrow_schema().names, [
        record
        for piece in parquet.pieces(path, MAX_CORPUS_BYTES, PIECE, columns)
        for record in piece.to_pylist()
    ]


def _check_rows(count: int) -> None:
    if count > MAX_ROWS:
        raise ValueError(f"it has {count:,} rows, more than {MAX_ROWS:,}")


def _names(records: list[Record]) -> list[str]:
    return list(dict.fromkeys(column for record in records for column in record))


def _settings(path: Path) -> tuple[Lengths, Cut]:
    """Lengths that the file does not name are MUSE's, and so is the way of cutting."""
    if not path.exists() and not path.is_symlink():
        return MUSE, "joined"
    text = read_text(path, "benchmark file", BenchmarkError, "mend or remove it", MAX_CONFIG_BYTES)
    try:
        settings: dict[str, Any] = json.loads(text)
        lengths, cut = Lengths(**settings.get("lengths", {})), settings.get("cut", "joined")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        known = ", ".join(LIMITS)
        raise BenchmarkError(
            f'{path} must hold {{"lengths": {{"passage": 64, …}}, "cut": "joined"}}, with lengths among {known}; mend or remove it'
        ) from error
    for name, (low, high) in LIMITS.items():
        value = getattr(lengths, name)
        if type(value) is not int or not low <= value <= high:
            raise BenchmarkError(
                f"{path}: {name} {str(value)[:80]!r} is no whole number from {low} to {high:,}; mend it"
            )
    if cut not in CUTS:
        raise BenchmarkError(f"{path}: cut {str(cut)[:80]!r} is unknown; use {', '.join(CUTS)}")
    return lengths, cut
