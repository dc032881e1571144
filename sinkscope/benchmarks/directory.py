"""Benchmarks from a local directory: `config/split.jsonl` (or .json, .parquet), and `benchmark.json`, which says how they are cut and asked."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from sinkscope.benchmarks.schema import COLUMNS, CUTS, MUSE, SCORED, Cut, Lengths, Record, Rows, checked, columns_of, required, splits_of
from sinkscope.errors import BenchmarkError

SUFFIXES = (".jsonl", ".json", ".parquet")
SETTINGS = "benchmark.json"


def read_directory(directory: Path, name: str) -> tuple[Rows, Lengths, Cut]:
    """All splits that lie in `directory`.

    Raises:
        BenchmarkError: a split or column is missing, or a file is damaged; the message lists what was found.
    """
    lengths, cut = _settings(directory / SETTINGS)
    files = {path.relative_to(directory).with_suffix("").as_posix(): path for suffix in reversed(SUFFIXES) for path in directory.glob(f"*/*{suffix}")}
    found = ", ".join(sorted(path.relative_to(directory).as_posix() for path in files.values())) or "nothing"
    there = {config for config in COLUMNS for split in splits_of(config) if f"{config}/{split}" in files}
    for config in [config for config in COLUMNS if config in {"raw", *there}]:
        for split in required(config, lengths.in_context):
            if f"{config}/{split}" not in files:
                raise BenchmarkError(f"benchmark {name} lacks {config}/{split}.jsonl (or .json, .parquet); found: {found}")
    if not there & set(SCORED):
        raise BenchmarkError(f"benchmark {name} has nothing to score; give one of {', '.join(SCORED)}; found: {found}")
    rows: Rows = {
        config: {split: _read(files[f"{config}/{split}"], columns_of(config, cut)) for split in splits_of(config) if f"{config}/{split}" in files}
        for config in COLUMNS
        if config in there
    }
    return rows, lengths, cut


def _read(path: Path, columns: tuple[str, ...]) -> list[Record]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_json(path, lines=path.suffix == ".jsonl", dtype=False)
    except (ValueError, OSError) as error:
        raise BenchmarkError(f"{path} cannot be read: {str(error).splitlines()[0]}; write it again as {path.suffix[1:]}") from error
    return checked(
        str(path),
        columns,
        [str(column) for column in frame.columns],
        ({str(column): value for column, value in record.items()} for record in frame.to_dict("records")),
    )


def _settings(path: Path) -> tuple[Lengths, Cut]:
    """Lengths that the file does not name are MUSE's, and so is the way of cutting."""
    if not path.is_file():
        return MUSE, "joined"
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Lengths)}
        lengths = Lengths(**{key: int(value) for key, value in settings.get("lengths", {}).items() if key in known})
        cut = settings.get("cut", "joined")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(f'{path} must hold {{"lengths": {{"passage": 64, …}}, "cut": "joined"}}; mend or remove it') from error
    if cut not in CUTS:
        raise BenchmarkError(f"{path}: cut {str(cut)[:80]!r} is unknown; use {', '.join(CUTS)}")
    return lengths, cut
