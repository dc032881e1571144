"""Parquet files of another hand: a small one can stand for a huge table, so what it stands for is counted before it is unpacked."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

RESULTS = 2**32
"""Bytes that a table of results may stand for."""


def read(path: Path) -> pd.DataFrame:
    """A whole table of results.

    Raises:
        ValueError: it stands for more than `RESULTS` bytes, or is no table.
        OSError: it is not there.
    """
    try:
        for _ in pieces(path, RESULTS, 1024):
            pass
        return pd.read_parquet(path)
    except ValueError as error:  # pyarrow's own are such, too
        raise ValueError(f"{path.name}: {error}") from error


def pieces(path: Path, limit: int, rows: int, columns: Collection[str] | None = None) -> Iterator[RecordBatch]:
    """Some `rows` of a table at a time, of all columns or of some, with each text of a dictionary once.

    Raises:
        ValueError: it stands for more than `limit` bytes, or holds something else than texts, numbers or lists of them.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        leaves = [file.schema.column(at) for at in range(len(file.schema))]
        wanted = [name for name in file.schema_arrow.names if columns is None or name in columns]
        _check(file.metadata.num_rows * len(wanted), limit)  # a byte each at least
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        size = 0
        for batch in file.iter_batches(rows, columns=wanted) if wanted else ():
            size += sum(map(_expanded, batch.columns))
            _check(size, limit)
            yield batch


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"it stands for more than {limit:,} bytes")


def _expanded(column: Array) -> int:
    """Bytes of a column whose texts are not shared, and those of an empty string in Python for each."""
    from pyarrow import compute, types

    while types.is_list(column.type) or types.is_large_list(column.type):
        column = column.flatten()
    if types.is_nested(column.type):
        raise ValueError(f"it holds {column.type}, where texts, numbers or lists belong")
    size = column.nbytes
    if types.is_dictionary(column.type):
        size = compute.sum(compute.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    return size + len(column) * sys.getsizeof("")
