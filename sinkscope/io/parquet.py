"""Parquet files of another hand: a small one can stand for a huge table, so what it stands for is counted before it is unpacked."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sinkscope.io.readers import MAX_RESULT_BYTES

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a number."""
OBJECT = sys.getsizeof("")
"""Bytes of an empty text in Python; numbers and lists take about as many."""


def read(path: Path) -> pd.DataFrame:
    """A whole table of results.

    Raises:
        ValueError: it stands for more than `RESULTS` bytes, or is no table.
        FileNotFoundError: it is not there.
    """
    try:
        for _ in pieces(path, MAX_RESULT_BYTES, 1024, cell=8):
            pass
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:  # pyarrow's own are such, too
        raise ValueError(f"{path.name}: {error}") from error


def pieces(
    path: Path, limit: int, rows: int, columns: Collection[str] | None = None, cell: int = OBJECT
) -> Iterator[RecordBatch]:
    """Some `rows` of a table at a time, of all columns or of some, with each text of a dictionary once.

    Args:
        cell: bytes that each value takes besides its own.

    Raises:
        ValueError: it stands for more than `limit` bytes, or holds something else than texts, numbers or lists of them.
    """
    from pyarrow import parquet

    footer = parquet.read_metadata(path)
    leaves = [footer.schema.column(at) for at in range(len(footer.schema))]
    wanted = [name for name in footer.schema.to_arrow_schema().names if columns is None or name in columns]
    widths = [OBJECT if leaf.max_repetition_level else WIDTHS.get(leaf.physical_type, 1) for leaf in leaves]
    _check(footer.num_rows * sum(widths), limit)
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with parquet.ParquetFile(path, metadata=footer, read_dictionary=texts) as file:
        size = 0
        for batch in file.iter_batches(rows, columns=wanted) if wanted else ():
            size += sum(_expanded(column, cell) for column in batch.columns)
            _check(size, limit)
            yield batch


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"it stands for more than {limit:,} bytes")


def _expanded(column: Array, cell: int) -> int:
    """Bytes of a column whose texts are not shared."""
    from pyarrow import compute, types

    lists = 0
    while types.is_list(column.type) or types.is_large_list(column.type):
        lists += len(column) * OBJECT
        column = column.flatten()
    if types.is_nested(column.type):
        raise ValueError(f"it holds {column.type}, where texts, numbers or lists belong")
    size = column.nbytes
    if types.is_dictionary(column.type):
        size = compute.sum(compute.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    return lists + size + len(column) * cell
