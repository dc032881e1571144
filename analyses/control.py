"""Control: UE and BE by placement of the trigger, without a loss on the forget set."""

from __future__ import annotations

import pandas as pd
from common import (
    PLACEMENT_AXIS,
    PLACEMENTS,
    compute_bars,
    concat_captions,
    describe_items,
    select_axis,
    select_effects,
)
from matplotlib.figure import Figure

from sinkscope.plots.scores import draw_bars
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position", "control", "control-unlearned")
SETTINGS = {
    "position": "unlearning\nwith a forget loss",
    "control": "no forget loss,\nfrom the target",
    "control-unlearned": "no forget loss,\nfrom the unlearned model",
}


def compute(study: Study) -> pd.DataFrame:
    """UE and BE; groups are settings (grids), series placements of the semantic trigger; see `compute_bars`.

    Raises:
        StudyError: the study lacks a grid or a score.
    """
    rows = pd.concat([select_effects(study, grid).assign(group=name) for grid, name in SETTINGS.items()])
    rows = rows.assign(series=select_axis(rows, PLACEMENT_AXIS))
    return compute_bars(study, rows, SETTINGS.values(), PLACEMENTS)


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "ROUGE-L F1 × 100 with and without a loss on the forget set",
        "semantic trigger",
        "ticks: other models, same trigger",
        describe_items(frame),
    )


def plot(frame: pd.DataFrame) -> Figure:
    names = {placement: placement for placement in PLACEMENTS}
    return draw_bars(frame, caption(frame), prefix="backdoored, ", names=names, xlabel="")
