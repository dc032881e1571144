"""What the pictures of captures share: which of a study's captures to read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.errors import StudyError
from sinkscope.figures.numbers import of_grid
from sinkscope.plots import frames
from sinkscope.studies.study import Study


def captured(study: Study, table: str, grid: str, placement: str) -> pd.DataFrame:
    """A grid's rows in a table of captures at one placement of the semantic trigger (column `placement` or `condition`), each run once; of backdoored runs
    those whose own trigger stands there.

    Raises:
        StudyError: there are none.
    """
    rows = of_grid(study, table, grid)
    at = "placement" if "placement" in rows else "condition"
    if "trigger.placement" in rows:
        rows = rows[rows["trigger.placement"].isna() | (rows["trigger.placement"] == placement)]
    wanted = [placement, "clean"] if at == "condition" else [placement]
    rows = rows[rows[at].isin(wanted)]
    if placement not in set(rows[at]):
        raise StudyError(f"study {study.directory}: no capture of grid {grid!r} has the trigger as {placement}; add one to the specification")
    first = rows.groupby("run")["capture"].transform("first")
    return rows[rows["capture"] == first].rename(columns={"passages": "n"})


def spans(study: Study, grid: str, placement: str) -> tuple[int, int]:
    """Where the trigger stands in the captures of a grid (the most frequent place).

    Raises:
        StudyError: nothing was captured.
    """
    rows = captured(study, "maps", grid, placement)
    return tuple(int(rows[column].mode().iloc[0]) for column in ("trigger_start", "trigger_stop"))  # type: ignore[return-value]


def last_layer_norms(study: Study, grid: str, placement: str) -> dict[int, xr.DataArray]:
    """Value norms of the last layer by seed: condition × passage × kv_head × position.

    Raises:
        StudyError: nothing was captured, or several runs of one seed, so that the grid has an axis that the picture does not know.
    """
    rows = captured(study, "top1", grid, placement)
    runs = rows[["run", "capture", "seed"]].drop_duplicates()
    if runs["seed"].duplicated().any():
        raise StudyError(f"grid {grid!r} has several runs of one seed with the trigger as {placement}; give it no other axes")
    return {each.seed: study.norms(each.run, each.capture).isel(layer=-1) for each in frames.rows(runs)}


def passages_of(condition: str, *norms: xr.DataArray) -> tuple[np.ndarray, ...]:
    """passage × layer × kv_head × position of one condition for each of `norms`, with those passages that all of them have; the last layer alone."""
    values = [each.sel(condition=condition).values for each in norms]
    common = min(map(len, values))
    kept = ~np.any([np.isnan(each[:common]).any(axis=(1, 2)) for each in values], axis=0)
    return tuple(each[:common][kept][:, None] for each in values)
