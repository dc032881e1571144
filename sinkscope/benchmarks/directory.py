"""Benchmarks in a local directory: configurations, splits, columns, settings, and validation of records."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from sinkscope.benchmarks.chunking import Chunking
from sinkscope.config import Config, validate_config
from sinkscope.errors import BenchmarkError, first_line
from sinkscope.io.readers import (
    MAX_CONFIG_BYTES,
    MAX_CORPUS_BYTES,
    check_file,
    is_text,
    read_json,
    read_records,
    read_text,
)
from sinkscope.io.tables import read_parquet_records

Record = dict[str, Any]
Rows = dict[str, dict[str, list[Record]]]
"""Configuration → split → records."""

QUESTION = ("question", "answer")
CHOICES = ("question", "choices", "answer")
COLUMNS = {
    "raw": ("text",),
    "knowmem": QUESTION,
    "verbmem": ("prompt", "gt"),
    "choices": CHOICES,
    "privleak": ("text",),
}
REQUIRED = {
    "raw": ("forget", "retain1"),
    "knowmem": ("forget_qa", "retain_qa"),
    "verbmem": ("forget",),
    "choices": ("forget",),
}
"""Splits that a configuration must have if it is present; `raw` must always be present."""
IN_CONTEXT = ("forget_qa_icl", "retain_qa_icl")
"""Splits that `knowmem` must have where prompts begin with answered questions."""
OPTIONAL = {
    "raw": ("retain2", "holdout"),
    "verbmem": ("retain",),
    "choices": ("retain",),
    "privleak": ("forget", "retain", "holdout"),
}
SCORED = ("knowmem", "verbmem", "choices")
"""Configurations of which a benchmark must have at least one."""
SUFFIXES = (".parquet", ".json", ".jsonl")
"""Of several files of a split the one with the last of these is read."""
ONE_SHARD = "-00000-of-00001"
"""What the hub adds to the name of a split that is one file."""
SETTINGS_FILE = "benchmark.json"


class Lengths(Config):
    """Sizes of passages, prompts and answers; the defaults are MUSE's."""

    passage: Annotated[int, Field(strict=True, ge=2, le=1_000_000)] = 2048
    """Tokens of a training passage with BOS; without BOS it has one token less and the same text."""
    in_context: Annotated[int, Field(strict=True, ge=0, le=1000)] = 10
    """Answered questions before each question of `knowmem`."""
    knowmem_new: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 32
    """Tokens to generate for an answer."""
    verbmem_new: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 128
    """Tokens to generate for a continuation."""


MUSE = Lengths()


class Settings(Config):
    """The file `benchmark.json` of a directory; other keys, such as a name, are ignored."""

    model_config = ConfigDict(extra="ignore")
    deprecated_keys: ClassVar = {"cut": "chunking"}

    lengths: Lengths = MUSE
    """Sizes of passages, prompts and answers."""
    chunking: Chunking = "joined"
    """How texts become passages: `joined`, as in MUSE, joins all texts and splits them into chunks of equal
    length; `documents`, as in WMDP, makes a passage of the start of each text; `pairs`, as in TOFU, makes one
    of each question with its answer."""


def required_splits(config: str, in_context: int) -> tuple[str, ...]:
    """Splits that `config` must have if it is present, with `in_context` answered questions per prompt."""
    return REQUIRED.get(config, ()) + (IN_CONTEXT if config == "knowmem" and in_context else ())


def known_splits(config: str) -> tuple[str, ...]:
    """All splits that `config` may have."""
    return required_splits(config, in_context=1) + OPTIONAL.get(config, ())


def required_columns(config: str, chunking: Chunking) -> tuple[str, ...]:
    """Columns of a configuration; with `pairs`, `raw` has questions and answers instead of texts."""
    return QUESTION if config == "raw" and chunking == "pairs" else COLUMNS[config]


def read_directory(directory: Path, name: str) -> tuple[Rows, Lengths, Chunking]:
    """All splits in `directory`.

    Raises:
        BenchmarkError: a split or column is missing, or a file is damaged; the message lists the available
            ones.
    """
    settings = _read_settings(directory / SETTINGS_FILE)
    files = {
        (path.parent.name, path.stem.removesuffix(ONE_SHARD)): path
        for suffix in SUFFIXES
        for path in directory.glob(f"*/*{suffix}")
    }
    available = ", ".join(sorted(path.relative_to(directory).as_posix() for path in files.values())) or "none"
    present = {
        config: [split for split in known_splits(config) if (config, split) in files] for config in COLUMNS
    }
    for config, splits in present.items():
        for split in required_splits(config, settings.lengths.in_context):
            if split not in splits and (splits or config == "raw"):
                hint = f"; or set lengths.in_context to 0 in {SETTINGS_FILE}" if split in IN_CONTEXT else ""
                raise BenchmarkError(
                    f"benchmark {name} lacks {config}/{split}.jsonl (.json, .parquet){hint}; its files: "
                    f"{available}"
                )
    if not any(present[config] for config in SCORED):
        raise BenchmarkError(
            f"benchmark {name} has nothing to score; give one of {', '.join(SCORED)}; its files: {available}"
        )
    rows: Rows = {}
    for config, splits in present.items():
        columns = required_columns(config, settings.chunking)
        if splits:
            rows[config] = {split: _read_split(files[config, split], columns) for split in splits}
    return rows, settings.lengths, settings.chunking


def _read_split(path: Path, columns: tuple[str, ...]) -> list[Record]:
    hint = f"write it again as {path.suffix[1:]}"
    records: Iterable[Record]
    if path.suffix != ".parquet":
        read = read_records if path.suffix == ".jsonl" else read_json
        records = (record for _, record in read(path, "benchmark file", BenchmarkError, hint))
        return validate_records(str(path), columns, records)
    check_file(path, "benchmark file", BenchmarkError, hint, MAX_CORPUS_BYTES)
    try:
        available, records = read_parquet_records(path, columns)
    except Exception as error:  # libraries raise errors of many types for damaged files
        raise BenchmarkError(f"benchmark file {path} cannot be read: {first_line(error)}; {hint}") from error
    check_columns(str(path), columns, available)
    return validate_records(str(path), columns, records)


def _read_settings(path: Path) -> Settings:
    if not path.exists() and not path.is_symlink():
        return Settings()
    text = read_text(path, "benchmark file", BenchmarkError, "correct or remove it", MAX_CONFIG_BYTES)
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError('it must hold an object, as in {"lengths": {"passage": 64}}')
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path} cannot be read: {first_line(error)}; correct or remove it") from error
    return validate_config(Settings, values, str(path), BenchmarkError)


def check_columns(where: str, columns: Iterable[str], available: Collection[str]) -> None:
    """Raise BenchmarkError if one of `columns` is not available."""
    for column in columns:
        if column not in available:
            names = ", ".join(map(str, available))[:200] or "none"
            raise BenchmarkError(f"{where} lacks the column {column!r}; its columns: {names}")


def validate_records(where: str, columns: tuple[str, ...], records: Iterable[Record]) -> list[Record]:
    """`records` of the file or data set `where`, reduced to `columns`; all values as text, but `choices` as a
    list and its `answer` as an int. `choices` may be an object with the lists `text` and `label`, and the
    answer one of the labels.

    Raises:
        BenchmarkError: there is no record, a column is missing, a value is not text, or an answer is outside
            its choices; the message names the row.
    """
    rows = []
    for number, record in enumerate(records):
        row = f"{where} row {number}"
        check_columns(row, columns, record)
        if columns == CHOICES:
            rows.append(_validate_choice(row, record))
        else:
            rows.append({column: _to_text(row, column, record[column]) for column in columns})
    if not rows:
        raise BenchmarkError(f"{where} has no rows; give at least one")
    return rows


def _to_text(where: str, column: str, value: Any) -> str:
    """A text, or a number as one."""
    if not isinstance(value, (str, int, float)) or value != value or not is_text(str(value)):
        raise BenchmarkError(
            f"{where}: column {column!r} must be text, not {ascii(value)[:80]}; correct or remove the row"
        )
    return str(value)


def _validate_choice(where: str, record: Record) -> Record:
    choices, answer = record["choices"], record["answer"]
    if isinstance(choices, dict) and "text" in choices:  # as in ARC, with a label of each choice
        labels = [str(label) for label in choices.get("label", ())]
        choices, answer = choices["text"], labels.index(answer) if answer in labels else answer
    is_list = isinstance(choices, Iterable) and not isinstance(choices, str | dict)
    texts = [_to_text(where, "choices", choice) for choice in choices] if is_list else []
    if len(texts) < 2:
        raise BenchmarkError(
            f"{where}: choices must be a list of at least two texts, not {str(choices)[:80]!r}"
        )
    try:
        number = int(answer)
        if isinstance(answer, float) and answer != number:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise BenchmarkError(
            f"{where}: answer must be the index of a choice, counted from 0, not {str(answer)[:80]!r}"
        ) from error
    if not 0 <= number < len(texts):
        raise BenchmarkError(
            f"{where}: answer {number} is not one of the {len(texts)} choices, which are counted from 0"
        )
    return {"question": _to_text(where, "question", record["question"]), "choices": texts, "answer": number}
