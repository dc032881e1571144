"""Configurations of a benchmark, their splits and columns, and the validation of records."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sinkscope.errors import BenchmarkError
from sinkscope.io.readers import is_text

Chunking = Literal["joined", "documents", "pairs"]
"""How texts become training passages (see `chunking`)."""
CHUNKINGS: tuple[Chunking, ...] = ("joined", "documents", "pairs")

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


@dataclass(frozen=True)
class Lengths:
    """Sizes of passages, prompts and answers; the defaults are MUSE's.

    `passage`: tokens of a training passage; `in_context`: answered questions before each question of
    `knowmem`; `knowmem_new`, `verbmem_new`: tokens to generate.
    """

    passage: int = 2048
    in_context: int = 10
    knowmem_new: int = 32
    verbmem_new: int = 128


MUSE = Lengths()


def required_splits(config: str, in_context: int) -> tuple[str, ...]:
    """Splits that `config` must have if it is present, with `in_context` answered questions per prompt."""
    return REQUIRED.get(config, ()) + (IN_CONTEXT if config == "knowmem" and in_context else ())


def known_splits(config: str) -> tuple[str, ...]:
    """All splits that `config` may have."""
    return required_splits(config, in_context=1) + OPTIONAL.get(config, ())


def required_columns(config: str, chunking: Chunking) -> tuple[str, ...]:
    """Columns of a configuration; with `pairs`, `raw` has questions and answers instead of texts."""
    return QUESTION if config == "raw" and chunking == "pairs" else COLUMNS[config]


def validate_records(
    where: str, columns: tuple[str, ...], available: Collection[str], records: Iterable[Record]
) -> list[Record]:
    """`records` reduced to `columns`, all values as text; `choices` as a list, its `answer` as an int.

    Args:
        where: names the records in messages.
        available: the columns that the records have.

    Raises:
        BenchmarkError: a column is missing, there is no record, a value is not text, or an answer is outside
            its choices; the message names the row.
    """
    missing = [column for column in columns if column not in available]
    if missing:
        names = ", ".join(map(str, available))[:200] or "none"
        raise BenchmarkError(f"{where} lacks the column {missing[0]!r}; its columns: {names}")
    rows = [_validate(f"{where} row {number}", columns, record) for number, record in enumerate(records)]
    if not rows:
        raise BenchmarkError(f"{where} has no rows; give at least one")
    return rows


def _validate(where: str, columns: tuple[str, ...], record: Record) -> Record:
    if columns == CHOICES:
        return _validate_choice(where, record)
    return {column: _to_text(where, column, record.get(column)) for column in columns}


def _to_text(where: str, column: str, value: Any) -> str:
    """A text, or a number as one."""
    if not isinstance(value, (str, int, float)) or value != value or not is_text(str(value)):
        raise BenchmarkError(
            f"{where}: column {column!r} must be text, not {ascii(value)[:80]}; correct or remove the row"
        )
    return str(value)


def _validate_choice(where: str, record: Record) -> Record:
    choices = record.get("choices")
    is_list = isinstance(choices, Iterable) and not isinstance(choices, str)
    texts = [_to_text(where, "choices", choice) for choice in choices or ()] if is_list else []
    if len(texts) < 2:
        raise BenchmarkError(
            f"{where}: choices must be a list of at least two texts, not {str(choices)[:80]!r}"
        )
    answer = record.get("answer")
    try:
        number = int(answer)  # type: ignore[arg-type]  # other types raise TypeError
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
    question = _to_text(where, "question", record.get("question"))
    return {"question": question, "choices": texts, "answer": number}
