"""Parquet tables and netCDF arrays, read within bounds: a small file can unpack to a huge one.

netCDF files are built in memory before they are written: HDF5 crashes the process on a full disk.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from sinkscope.io.readers import MAX_CORPUS_BYTES, MAX_RESULT_BYTES, MAX_ROWS

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

VALUE_BYTES = sys.getsizeof("")
"""Memory of a value as a Python object, in addition to its own bytes."""
BATCH_ROWS = 1024
WRONG_COUNTS = "it holds another number of values than its footer states"


def read_parquet(path: Path) -> pd.DataFrame:
    """A table of results; ValueError if it unpacks to more than `MAX_RESULT_BYTES` or is not a table."""
    try:
        for _ in _decode_batches(path, None, MAX_RESULT_BYTES):
            pass
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these types
        raise ValueError(f"{path.name}: {error}") from error


def read_parquet_records(path: Path, columns: Collection[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of all columns of a table from elsewhere, and its rows with some of the columns.

    ValueError or OSError if it is no table of texts, numbers or lists of them, has more than `MAX_ROWS` rows,
    or unpacks to more than `MAX_CORPUS_BYTES`.
    """
    from pyarrow import parquet

    footer = parquet.read_metadata(path)
    if footer.num_rows > MAX_ROWS:
        raise ValueError(f"it has {footer.num_rows:,} rows, more than {MAX_ROWS:,}")
    batches = _decode_batches(path, columns, MAX_CORPUS_BYTES)
    records = [record for batch in batches for record in batch.to_pylist()]
    return footer.schema.to_arrow_schema().names, records


def _decode_batches(path: Path, columns: Collection[str] | None, limit: int) -> Iterator[RecordBatch]:
    """Columns of a table, all or some, in batches with every text stored once.

    A footer can state less than the pages hold, so its counts bound what is decoded from them. ValueError if
    they are wrong, or the columns unpack to more than `limit` bytes.
    """
    from pyarrow import parquet

    footer = parquet.read_metadata(path)
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    row_counts = [group.num_rows for group in groups]
    if sum(row_counts) != footer.num_rows or min(row_counts, default=0) < 0:
        raise ValueError(WRONG_COUNTS)
    size = 0
    texts = []
    values: Counter[str] = Counter()
    for index in range(len(footer.schema)):
        leaf = footer.schema.column(index)
        name = leaf.path.split(".")[0]
        if columns is not None and name not in columns:
            continue
        width = VALUE_BYTES + max(8, leaf.length or 0)
        for group in groups:
            chunk = group.column(index)
            is_list = leaf.max_repetition_level > 0  # an empty list counts as a value
            if chunk.num_values < group.num_rows or (chunk.num_values > group.num_rows and not is_list):
                raise ValueError(WRONG_COUNTS)
            size += max(chunk.total_uncompressed_size, chunk.num_values * width)
            values[name] += chunk.num_values
        if leaf.physical_type == "BYTE_ARRAY":
            texts.append(leaf.path)
    _check_size(size, limit)
    names = None if columns is None else [name for name in columns if name in values]
    if names == []:
        return
    with parquet.ParquetFile(path, metadata=footer, read_dictionary=texts) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=names, use_pandas_metadata=False):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                column_name = name.split(".")[0]
                count, text_bytes = _measure(column)
                values[column_name] -= count
                size += text_bytes
                if values[column_name] < 0:
                    raise ValueError(WRONG_COUNTS)
            _check_size(size, limit)
            yield batch


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"it unpacks to more than {limit:,} bytes")


def _measure(array: Array) -> tuple[int, int]:
    """The number of values in a column, and the bytes of its texts, each counted as often as it occurs."""
    from pyarrow import compute, types

    count = len(array)
    while types.is_list(array.type) or types.is_large_list(array.type):
        array = array.flatten()
        count = max(count, len(array))
    if types.is_struct(array.type):  # a count for each field, as the footer has
        fields = [_measure(field) for field in array.flatten()]
        return sum(max(count, n) for n, _ in fields), sum(size for _, size in fields)
    if types.is_nested(array.type):
        raise ValueError(f"it holds {array.type}, where texts, numbers, lists or records belong")
    if not types.is_dictionary(array.type):
        return count, 0
    return count, compute.sum(compute.binary_length(array.dictionary).take(array.indices)).as_py() or 0


def load_netcdf(path: Path, group: str | None = None) -> xr.Dataset:
    """A file, or a group in it; ValueError if it unpacks to more than `MAX_RESULT_BYTES`."""
    import h5netcdf  # xarray would read the coordinates on opening

    with h5netcdf.File(path, "r", phony_dims="access") as file:
        variables = (file[group] if group else file).variables.values()
        size = sum(math.prod(variable.shape) * variable.dtype.itemsize for variable in variables)
    if size > MAX_RESULT_BYTES:
        raise ValueError(f"{path.name} unpacks to {size:,} bytes, more than {MAX_RESULT_BYTES:,}")
    return xr.load_dataset(path, engine="h5netcdf", group=group, phony_dims="access")


def load_array(path: Path, name: str, group: str | None = None) -> xr.DataArray:
    """One variable, with the attributes of its data set; raises as `load_netcdf`, KeyError if missing."""
    data = load_netcdf(path, group)
    return data[name].assign_attrs(data.attrs)


def write_netcdf(
    groups: Mapping[str, xr.Dataset], path: Path, encoding: Mapping[str, Any] | None = None
) -> None:
    """Write data sets by the name of their group, `/` for the root."""
    memory = BytesIO()
    for number, (group, data) in enumerate(groups.items()):
        data.to_netcdf(memory, engine="h5netcdf", mode="a" if number else "w", group=group, encoding=encoding)
    path.write_bytes(memory.getbuffer())
