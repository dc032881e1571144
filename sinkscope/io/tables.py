"""Parquet tables and netCDF arrays, read within bounds: a small file can unpack to a huge one.

netCDF files are built in memory before they are written: HDF5 crashes the process on a full disk.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from sinkscope.io.readers import MAX_CORPUS_BYTES, MAX_RESULT_BYTES, MAX_ROWS

if TYPE_CHECKING:
    from pyarrow import Array, Table

VALUE_BYTES = sys.getsizeof("")
"""Memory of a value as a Python object, in addition to its own bytes."""


def read_parquet(path: Path) -> pd.DataFrame:
    """A table of results.

    Raises:
        ValueError: it unpacks to more than `MAX_RESULT_BYTES`, or is not a table.
        FileNotFoundError: it does not exist.
    """
    try:
        _read_dictionary_table(path, None, MAX_RESULT_BYTES, only_texts=True)
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these types
        raise ValueError(f"{path.name}: {error}") from error


def read_parquet_records(path: Path, columns: Collection[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of all columns of a table from elsewhere, and its rows with some of the columns.

    Raises:
        ValueError, OSError: it has more than `MAX_ROWS` rows, unpacks to more than `MAX_CORPUS_BYTES`,
            or has something other than texts, numbers or lists of them.
    """
    from pyarrow import parquet

    footer = parquet.read_metadata(path)
    if footer.num_rows > MAX_ROWS:
        raise ValueError(f"it has {footer.num_rows:,} rows, more than {MAX_ROWS:,}")
    table = _read_dictionary_table(path, columns, MAX_CORPUS_BYTES)
    return footer.schema.to_arrow_schema().names, table.to_pylist()


def _read_dictionary_table(
    path: Path, columns: Collection[str] | None, limit: int, *, only_texts: bool = False
) -> Table:
    """Columns of a table with every text stored once, if it is within `limit` when it is unpacked."""
    from pyarrow import parquet

    footer = parquet.read_metadata(path)
    size = 0
    texts = []
    names = set()
    for index in range(len(footer.schema)):
        leaf = footer.schema.column(index)
        name = leaf.path.split(".")[0]
        if columns is not None and name not in columns:
            continue
        chunks = [footer.row_group(group).column(index) for group in range(footer.num_row_groups)]
        width = VALUE_BYTES + max(8, leaf.length or 0)
        size += sum(max(chunk.total_uncompressed_size, chunk.num_values * width) for chunk in chunks)
        if leaf.physical_type == "BYTE_ARRAY":
            texts.append(leaf.path)
        if leaf.physical_type == "BYTE_ARRAY" or not only_texts:
            names.add(name)
    _check_size(size, limit)
    order = [name for name in footer.schema.to_arrow_schema().names if name in names]
    with parquet.ParquetFile(path, metadata=footer, read_dictionary=texts) as file:
        table = file.read(columns=order, use_pandas_metadata=False)
    arrays = (chunk for column in table.columns for chunk in column.chunks)
    _check_size(size + sum(map(_text_bytes, arrays)), limit)
    return table


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"it unpacks to more than {limit:,} bytes")


def _text_bytes(array: Array) -> int:
    """Bytes of dictionary-encoded texts when each is stored as often as it occurs."""
    from pyarrow import compute, types

    while types.is_list(array.type) or types.is_large_list(array.type):
        array = array.flatten()
    if types.is_nested(array.type):
        raise ValueError(f"it holds {array.type}, where texts, numbers or lists belong")
    if not types.is_dictionary(array.type):
        return 0
    return compute.sum(compute.binary_length(array.dictionary).take(array.indices)).as_py() or 0


def load_netcdf(path: Path, group: str | None = None) -> xr.Dataset:
    """A file, or a group in it.

    Raises:
        OSError, KeyError: there is no such file or group.
        ValueError: it unpacks to more than `MAX_RESULT_BYTES`.
    """
    import h5netcdf

    with h5netcdf.File(
        path, "r", phony_dims="access"
    ) as file:  # xarray would read the coordinates on opening
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
