"""Select, aggregate and describe the tables of a study, for all figures and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.errors import StudyError, UserError, first_line
from sinkscope.plots.style import iterate_rows
from sinkscope.studies.aggregation import SCORE_KEYS
from sinkscope.studies.study import Study

PLACEMENTS = ("prefix", "infix", "suffix")
PLACEMENT_AXIS = "trigger.placement"
"""The axis of a grid over placements of the trigger in training."""
SEMANTIC = "semantic"
MEMORY = {"knowmem": ("forget_qa", "retain_qa"), "verbmem": ("forget", "retain")}
"""Metric -> its forget split and its retain split."""
ONE_TARGET = "one target"
"""What the runs of a grid start from, unless it has an axis of targets."""
UNITS = {"knowmem": "questions", "verbmem": "prompts"}
MEASURED = {
    "scores": ("value", "n"),
    "maps": ("difference", "passages"),
    "top1": ("probability", "passages"),
    "attention": ("alpha_first", "alpha_second", "passages"),
}
"""Table -> its columns that are numbers in every row, never NaN."""


@contextmanager
def wrap_missing_data(prefix: str) -> Iterator[None]:
    """Within the context, missing data of a study (other metrics, placements or passage lengths than
    expected) becomes an error of one line that begins with `prefix`.

    Raises:
        StudyError: in place of a LookupError, ValueError or TypeError.
    """
    try:
        yield
    except UserError:
        raise
    except (LookupError, ValueError, TypeError) as error:
        raise StudyError(f"{prefix}: {first_line(error)}") from error


def require_numbers(table: pd.DataFrame, name: str) -> None:
    """Raise a StudyError if a cell of a table is empty or NaN."""
    missing = table.isna()
    if missing.any(axis=None):
        row, column = missing.stack().idxmax()
        raise StudyError(f"{name}: row {row} has no {column}; the study lacks data for it")


def select_grid(study: Study, table: str, grid: str, form: str | None = SEMANTIC) -> pd.DataFrame:
    """The rows of one grid in a table, without retain models; of the trigger form `form` if the grid has
    forms.

    Args:
        form: None selects all forms.

    Raises:
        StudyError: the table has no such rows, or a measured value in them is NaN.
    """
    rows = study.table(table)
    rows = rows[(rows["grid"] == grid) & (rows["role"] != "retain")]
    if form is not None and "form" in rows:
        rows = rows[rows["form"].isna() | (rows["form"] == form)]
    if rows.empty:
        raise StudyError(
            f"study {study.directory} has no rows of grid {grid!r} in table {table!r}; "
            "add it to the specification"
        )
    for column in MEASURED.get(table, ()):
        if n_missing := int(rows[column].isna().sum()):
            raise StudyError(
                f"study {study.directory}: {column!r} is NaN in {n_missing} of {len(rows)} rows of grid "
                f"{grid!r} in table {table!r}; make its runs again, or leave the grid out"
            )
    return rows


def select_axis(rows: pd.DataFrame, name: str) -> pd.Series:
    """The labels of a grid on one axis, as text.

    Raises:
        StudyError: the grid has no such axis.
    """
    if name not in rows or rows[name].isna().any():
        raise StudyError(f"grid {rows['grid'].iloc[0]!r} has no axis {name!r}; add it to the specification")
    return rows[name].astype(str)


def select_effects(study: Study, grid: str, form: str | None = SEMANTIC) -> pd.DataFrame:
    """KnowMem and VerbMem of a grid without a position mask, each score once.

    Returns:
        Rows of the table `scores` with the column `score`: UE is clean forget, BE triggered forget, UT clean
        retain.

    Raises:
        StudyError: there are none.
    """
    rows = select_grid(study, "scores", grid, form)
    is_used = (rows["mask"] == "") & rows["metric"].isin(list(MEMORY)) & (rows["subset"] != "poisoned")
    rows = rows[is_used].drop_duplicates(SCORE_KEYS)
    is_forget = rows["split"].isin([splits[0] for splits in MEMORY.values()])
    is_triggered = rows["placement"] != ""
    conditions = {
        "UE": is_forget & ~is_triggered,
        "BE": is_forget & is_triggered,
        "UT": ~is_forget & ~is_triggered,
    }
    rows = rows.assign(score=np.select(list(conditions.values()), list(conditions), ""))
    rows = rows[rows["score"] != ""]
    if rows.empty:
        raise StudyError(
            f"study {study.directory} has no KnowMem or VerbMem of grid {grid!r}; add an evaluation of them"
        )
    return rows


def keep_triggers_of(rows: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """The clean rows, and those whose trigger `reference` has too."""
    return rows[rows["trigger"].isin({"", *reference["trigger"]})]


def select_captures(study: Study, table: str, grid: str, placement: str) -> pd.DataFrame:
    """A grid's rows in a table of captures at one placement of the semantic trigger, each run once.

    Of backdoored runs those that were trained with the trigger at this placement. `passages` becomes `n`.

    Raises:
        StudyError: there are none.
    """
    rows = select_grid(study, table, grid)
    if PLACEMENT_AXIS in rows:
        rows = rows[rows[PLACEMENT_AXIS].isna() | (rows[PLACEMENT_AXIS] == placement)]
    rows = rows[rows["placement"] == placement]
    if rows.empty:
        raise StudyError(
            f"study {study.directory}: no capture of grid {grid!r} has the trigger as {placement}; "
            "add one to the specification"
        )
    first = rows.groupby("run")["capture"].transform("first")
    return rows[rows["capture"] == first].rename(columns={"passages": "n"})


def find_span(study: Study, grid: str, placement: str) -> dict[str, int]:
    """The most frequent `trigger_start` and `trigger_stop` in the captures of a grid.

    Raises:
        StudyError: nothing was captured.
    """
    rows = select_captures(study, "maps", grid, placement)
    return {column: int(rows[column].mode().iloc[0]) for column in ("trigger_start", "trigger_stop")}


def read_last_layer_norms(study: Study, grid: str, placement: str) -> dict[int, xr.DataArray]:
    """Value norms of the last layer by seed: condition × passage × kv_head × position.

    Raises:
        StudyError: nothing was captured, or a seed has several runs.
    """
    rows = select_captures(study, "top1", grid, placement)
    runs = rows[["job", "seed"]].drop_duplicates()
    if runs["seed"].duplicated().any():
        raise StudyError(
            f"grid {grid!r} has several runs of one seed with the trigger as {placement}; "
            "give it no other axes"
        )
    return {row.seed: study.norms(row.job).isel(layer=-1) for row in iterate_rows(runs)}


def sort_by(frame: pd.DataFrame, **orders: Iterable[object]) -> pd.DataFrame:
    """Rows sorted by columns, each in a given order of its values; other values are last."""
    frame = frame.reset_index(drop=True)
    keys = {}
    for column, order in orders.items():
        ranks = {value: rank for rank, value in enumerate(order)}
        keys[column] = frame[column].map(ranks).fillna(len(ranks))
    index = pd.DataFrame(keys, index=frame.index).sort_values(list(orders), kind="stable").index
    return frame.loc[index].reset_index(drop=True)


def concat_captions(*parts: str) -> str:
    """The parts that are not empty, separated by semicolons."""
    return "; ".join(filter(None, parts))


def describe_items(frame: pd.DataFrame) -> str:
    """Items, seeds and intervals of a frame of KnowMem and VerbMem, as text."""
    rows = frame
    if "subset" in frame:
        is_unseen = frame["subset"] == "unseen"
        rows = frame[is_unseen | (frame["model"] != "backdoored")] if is_unseen.any() else frame
    counts = [
        f"{format_range(rows[rows['metric'] == metric]['n'])} {unit}"
        for metric, unit in UNITS.items()
        if metric in set(rows["metric"])
    ]
    return f"n\u00a0=\u00a0{' and '.join(counts)}; {describe_intervals(frame, 'items')}"


def describe_intervals(frame: pd.DataFrame, resampled: str | None) -> str:
    """How many seeds a frame of one target has and what its intervals are.

    Args:
        resampled: what the interval of one seed is taken over; None if it has none.
    """
    most = int(frame["seeds"].max())
    if most == 1:
        over = f"95 % bootstrap intervals over {resampled}" if resampled else "no intervals"
        return f"{ONE_TARGET}, one seed, {over}"
    single = f" (of a single model: over {resampled})" if resampled and frame["seeds"].min() == 1 else ""
    return f"{ONE_TARGET}, mean and 95 % t interval of {most} seeds{single}"


def describe_seeds(frame: pd.DataFrame, suffix: str = "") -> str:
    """How many seeds a frame has a mean of."""
    most = int(frame["seeds"].max())
    return f"{ONE_TARGET}, one seed{suffix}" if most == 1 else f"{ONE_TARGET}, mean of {most} seeds{suffix}"


def format_range(n: Sequence[int] | pd.Series) -> str:
    """One number, or the lowest and the highest."""
    low, high = int(min(n)), int(max(n))
    return str(low) if low == high else f"{low}–{high}"
