"""What a benchmark is made of: configurations, their splits and columns, and the check that records have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sinkscope.errors import BenchmarkError
from sinkscope.io.readers import is_text

Cut = Literal["joined", "documents", "pairs"]
"""How texts become passages (see `cutting`)."""
CUTS: tuple[Cut, ...] = ("joined", "documents", "pairs")

Record = dict[str, Any]
Rows = dict[str, dict[str, list[Record]]]
"""Configuration → split → records."""

TEXT, PROMPT, QUESTION, CHOICES = (
    ("text",),
    ("prompt", "gt"),
    ("question", "answer"),
    ("question", "choices", "answer"),
)
COLUMNS = {"raw": TEXT, "knowmem": QUESTION, "verbmem": PROMPT, "choices": CHOICES, "privleak": TEXT}
REQUIRED = {
    "raw": ("forget", "retain1"),
    "knowmem": ("forget_qa", "retain_qa"),
    "verbmem": ("forget",),
    "choices": ("forget",),
}
"""Splits that a configuration needs if it is there; `raw` always is."""
IN_CONTEXT = ("forget_qa_icl", "retain_qa_icl")
"""Splits that `knowmem` needs where solved questions are shown."""
OPTIONAL = {
    "raw": ("retain2", "holdout"),
    "verbmem": ("retain",),
    "choices": ("retain",),
    "privleak": ("forget", "retain", "holdout"),
}
SCORED = ("knowmem", "verbmem", "choices")
"""Configurations of which a benchmark needs one at least."""


@dataclass(frozen=True)
class Lengths:
    """How a benchmark cuts and asks, in tokens and pairs. The defaults are MUSE's."""

    passage: int = 2048
    in_context: int = 10
    knowmem_new: int = 32
    verbmem_new: int = 128


MUSE = Lengths()


def required(config: str, in_context: int) -> tuple[str, ...]:
    """Splits that `config` needs if it is there, `in_context` solved questions being shown."""
    return REQUIRED.get(config, ()) + (IN_CONTEXT if config == "knowmem" and in_context else ())


def splits_of(config: str) -> tuple[str, ...]:
    """All splits that `config` may have."""
    return REQUIRED.get(config, ()) + (IN_CONTEXT if config == "knowmem" else ()) + OPTIONAL.get(config, ())


def columns_of(config: str, cut: Cut) -> tuple[str, ...]:
    """Columns of a configuration; `pairs` are cut from questions and answers instead of texts."""
    return QUESTION if config == "raw" and cut == "pairs" else COLUMNS[config]


def checked(
    where: str, columns: tuple[str, ...], found: Collection[str], records: Iterable[Record]
) -> list[Record]:
    """`records` with `columns` alone, as text; choices as a list of texts, their answer as a number.

    Args:
        where: names the records in messages.
        found: the columns that are there.

    Raises:
        BenchmarkError: a column is missing, there is no record, a value is no text, or an answer lies outside its choices; the row is named.
    """
    if missing := [column for column in columns if column not in found]:
        raise BenchmarkError(
            f"{where} lacks the column {missing[0]!r}; it has {', '.join(map(str, found))[:200] or 'none'}"
        )
    read = (
        _choice
        if columns == CHOICES
        else lambda where, record: {column: _text(where, column, record.get(column)) for column in columns}
    )
    rows = [read(f"{where} row {number}", record) for number, record in enumerate(records)]
    if not rows:
        raise BenchmarkError(f"{where} has no rows; give at least one")
    return rows


def _text(where: str, column: str, value: Any) -> str:
    """A text, or a number as one."""
    if not isinstance(value, (str, int, float)) or value != value or not is_text(str(value)):
        raise BenchmarkError(
            f"{where} has no text in the column {column!r} but {ascii(value)[:80]}; mend or remove it"
        )
    return str(value)


def _choice(where: str, record: Record) -> Record:
    choices, answer = record.get("choices"), record.get("answer")
    if (
        isinstance(choices, str)
        or not isinstance(choices, Iterable)
        or len(texts := [_text(where, "choices", choice) for choice in choices]) < 2
    ):
        raise BenchmarkError(
            f"{where}: choices must be a list of two texts or more, not {str(choices)[:80]!r}"
        )
    try:
        number = int(answer)  # type: ignore[arg-type]  # what is no number is told below
        if isinstance(answer, float) and answer != number:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise BenchmarkError(
            f"{where}: the answer is the number of a choice, counted from 0, not {str(answer)[:80]!r}"
        ) from error
    if not 0 <= number < len(texts):
        raise BenchmarkError(
            f"{where}: answer {number} is none of its {len(texts)} choices; they count from 0"
        )
    return {"question": _text(where, "question", record.get("question")), "choices": texts, "answer": number}
