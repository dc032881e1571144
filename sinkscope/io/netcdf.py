"""netCDF files, made in memory and then written: HDF5 crashes the process where it meets a full disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import h5netcdf
import xarray as xr

from sinkscope.io.readers import MAX_RESULT_BYTES


def load(path: Path, group: str | None = None) -> xr.Dataset:
    """All of a file, or of a group in it.

    Raises:
        OSError, KeyError: there is no such file or group.
        ValueError: it stands for more than `RESULTS` bytes.
    """
    with h5netcdf.File(
        path, "r", phony_dims="access"
    ) as file:  # xarray reads coordinates as soon as it opens a file
        size = sum(
            math.prod(each.shape) * each.dtype.itemsize
            for each in (file[group] if group else file).variables.values()
        )
    if size > MAX_RESULT_BYTES:
        raise ValueError(f"{path.name} stands for {size:,} bytes, more than {MAX_RESULT_BYTES:,}")
    return xr.load_dataset(path, engine="h5netcdf", group=group, phony_dims="access")


def read(path: Path, name: str, group: str | None = None) -> xr.DataArray:
    """One variable, with the attributes of its data set; raises as `load`, and KeyError where it is not there."""
    data = load(path, group)
    return data[name].assign_attrs(data.attrs)


def write(groups: Mapping[str, xr.Dataset], path: Path, encoding: Mapping[str, Any] | None = None) -> None:
    """Data sets by the name of their group, `/` for the root."""
    memory = BytesIO()
    for number, (group, data) in enumerate(groups.items()):
        data.to_netcdf(memory, engine="h5netcdf", mode="a" if number else "w", group=group, encoding=encoding)
    path.write_bytes(memory.getbuffer())
