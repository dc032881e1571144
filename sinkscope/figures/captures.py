"""What the pictures of captures share: which of a study's captures to read."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from sinkscope.errors import StudyError
from sinkscope.figures.numbers import of_grid
from sinkscope.plots import frames
from sinkscope.studies.study import Study


def captured(study: Study, table: str, grid: str, placement: str) -> pd.DataFrame:
    """A grid's rows in a table of captures at one placement of the semantic trigger (column `placement`), each run once; of backdoored runs
    those whose own trigger stands there.

    Raises:
        StudyError: there are none.
    """
    rows = of_grid(study, table, grid)
    if "trigger.placement" in rows:
        rows = rows[rows["trigger.placement"].isna() | (rows["trigger.placement"] == placement)]
    rows = rows[rows["placement"] == placement]
    if rows.empty:
        raise StudyError(
            f"study {study.directory}: no capture of grid {grid!r} has the trigger as {placement}; add one to the specification"
        )
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
    runs = rows[["job", "seed"]].drop_duplicates()
    if runs["seed"].duplicated().any():
        raise StudyError(
            f"grid {grid!r} has several runs of one seed with the trigger as {placement}; give it no other axes"
        )
    return {each.seed: study.norms(each.job).isel(layer=-1) for each in frames.rows(runs)}
