"""Figure 3: attention change by the trigger, in the target and in backdoored models."""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import (
    ONE_TARGET,
    PLACEMENTS,
    concat_captions,
    find_span,
    format_range,
    select_captures,
    select_grid,
)
from matplotlib.figure import Figure

from sinkscope.plots.comparison import Span, draw_difference_maps
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
GRIDS = {"target": "target", "unlearned": "unlearned", "backdoored": "position"}


def compute(study: Study) -> pd.DataFrame:
    """A row per model, placement and cell of the map.

    Columns query and key are the first positions of the bins; value is triggered − clean attention in the
    last layer, mean over heads, with its interval, n passages, seeds, trigger_start and trigger_stop.

    Raises:
        StudyError: the study lacks a grid or a capture.
    """
    parts = []
    for model, grid in GRIDS.items():
        captured = set(select_grid(study, "maps", grid)["placement"])
        for placement in PLACEMENTS:
            if placement in captured:
                rows = select_captures(study, "maps", grid, placement).rename(columns={"difference": "value"})
                means = mean_over_seeds(rows, ["query", "key"])
                span = find_span(study, grid, placement)
                parts.append(means.assign(model=model, placement=placement, **span))
    return pd.concat(parts, ignore_index=True)


def _bin_size(frame: pd.DataFrame) -> int:
    return int(np.diff(np.sort(frame["query"].unique())).min())


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "Attention change by the semantic trigger, last layer, mean over heads, "
        f"bins of {_bin_size(frame)} tokens",
        "lines: the trigger’s span, as queries and as attended positions; at these the clean passage has "
        "its own text, later tokens of it are shifted",
        _describe(frame),
    )


def _describe(frame: pd.DataFrame) -> str:
    by_model = frame.groupby("model", sort=False)["seeds"].max()
    seeds = ", ".join(f"{model}: {'one seed' if n == 1 else f'{n} seeds'}" for model, n in by_model.items())
    return (
        f"n\u00a0=\u00a0{format_range(frame['n'])} forget passages; {ONE_TARGET}; {seeds}; "
        "dots: 95 % t interval excludes 0"
    )


def plot(frame: pd.DataFrame) -> Figure:
    maps: dict[str, tuple[np.ndarray, Span]] = {}
    certain: dict[str, np.ndarray] = {}
    for (model, placement), cells in frame.groupby(["model", "placement"], sort=False):
        values = cells.pivot(index="query", columns="key", values="value").to_numpy()
        span = (int(cells["trigger_start"].iloc[0]), int(cells["trigger_stop"].iloc[0]))
        label = f"{model}, trigger as {placement}"
        maps[label] = (values, span)
        is_certain = cells.assign(value=(cells["ci_low"] > 0) | (cells["ci_high"] < 0))
        certain[label] = is_certain.pivot(index="query", columns="key", values="value").eq(True).to_numpy()
    columns = frame["placement"].nunique()
    difference = "attention, with − without the trigger"
    return draw_difference_maps(maps, _bin_size(frame), difference, _describe(frame), columns, certain)
