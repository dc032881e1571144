"""netCDF files, made in memory and then written: HDF5 crashes the process where it meets a full disk."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import xarray as xr


def read(path: Path, name: str, group: str | None = None) -> xr.DataArray:
    """One variable, with the attributes of its data set.

    Raises:
        OSError, KeyError: there is no such file, group or variable.
    """
    data = xr.load_dataset(path, engine="h5netcdf", group=group)
    return data[name].assign_attrs(data.attrs)


def write(groups: Mapping[str, xr.Dataset], path: Path, encoding: Mapping[str, Any] | None = None) -> None:
    """Data sets by the name of their group, `/` for the root."""
    memory = BytesIO()
    for number, (group, data) in enumerate(groups.items()):
        data.to_netcdf(memory, engine="h5netcdf", mode="a" if number else "w", group=group, encoding=encoding)
    path.write_bytes(memory.getbuffer())
