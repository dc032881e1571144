"""Figure 3: how the trigger changes attention, in the target and in backdoored models, by placement of the trigger."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.captures import captured, spans
from sinkscope.figures.numbers import PLACEMENTS, of_grid, over_seeds
from sinkscope.plots import comparison as compare
from sinkscope.plots import interactive
from sinkscope.studies.study import Study

NEEDS = ("target", "position")
GRIDS = {"target": "target", "backdoored": "position"}


def frame(study: Study) -> pd.DataFrame:
    """A row per model, placement and cell of the map: query, key (first positions of the bins), value (triggered − clean attention, last layer, heads
    averaged), its interval, n passages, seeds, trigger_start, trigger_stop.

    Raises:
        StudyError: the study lacks what is needed.
    """
    parts = []
    seen = set(of_grid(study, "maps", GRIDS["backdoored"])["placement"])
    for model, grid in GRIDS.items():
        for placement in filter(seen.__contains__, PLACEMENTS):
            rows = captured(study, "maps", grid, placement).rename(columns={"difference": "value"})
            start, stop = spans(study, grid, placement)
            parts.append(
                over_seeds(rows, ["query", "key"]).assign(
                    model=model, placement=placement, trigger_start=start, trigger_stop=stop
                )
            )
    return pd.concat(parts, ignore_index=True)


def _maps(frame: pd.DataFrame) -> dict[str, tuple[np.ndarray, tuple[int, int]]]:
    maps = {}
    for (model, placement), cells in frame.groupby(["model", "placement"], sort=False):
        values = cells.pivot(index="query", columns="key", values="value").to_numpy()
        maps[f"{model}, trigger as {placement}"] = (
            values,
            (int(cells["trigger_start"].iloc[0]), int(cells["trigger_stop"].iloc[0])),
        )
    return maps


def _bin(frame: pd.DataFrame) -> int:
    return int(np.diff(np.sort(frame["query"].unique())).min())


def caption(frame: pd.DataFrame) -> str:
    seeds = int(frame["seeds"].max())
    about = f"Attention change by the semantic trigger, last layer, mean over heads, bins of {_bin(frame)} tokens; lines: the trigger’s place"
    return f"{about}; n = {frame['n'].min()} forget passages; {'one seed' if seeds == 1 else f'mean of {seeds} seeds'}"


def draw(frame: pd.DataFrame) -> Figure:
    return compare.draw_difference_maps(
        _maps(frame), _bin(frame), "triggered − clean", caption(frame), columns=frame["placement"].nunique()
    )


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.difference_maps(
        _maps(frame), _bin(frame), caption(frame), columns=frame["placement"].nunique()
    )
