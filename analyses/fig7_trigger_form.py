"""Figure 7: UE and BE by form and placement of the trigger."""

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

NEEDS = ("target", "unlearned", "position")
FORMS = ("semantic", "symbol", "reasoning")


def compute(study: Study) -> pd.DataFrame:
    """UE and BE; groups are forms of the trigger, series its placements; see `common.compute_bars`.

    Raises:
        StudyError: the study lacks a grid or a score.
    """
    rows = select_effects(study, "position", form=None)
    rows = rows.assign(group=select_axis(rows, "form"), series=select_axis(rows, PLACEMENT_AXIS))
    return compute_bars(study, rows, FORMS, PLACEMENTS)


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "ROUGE-L F1 × 100 by form and placement of the trigger",
        "ticks: other models, same trigger",
        describe_items(frame),
    )


def plot(frame: pd.DataFrame) -> Figure:
    names = {placement: placement for placement in PLACEMENTS}
    return draw_bars(frame, caption(frame), prefix="backdoored, ", names=names, xlabel="form of the trigger")
