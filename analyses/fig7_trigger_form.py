"""Figure 7: UE and BE by form and placement of the trigger."""

from __future__ import annotations

import pandas as pd
from bars import BarFigure
from common import PLACEMENT_AXIS, PLACEMENTS, select_axis, select_effects, sort_by

from sinkscope.studies.study import Study


def select(study: Study) -> pd.DataFrame:
    """Groups are forms of the trigger, series its placements."""
    rows = select_effects(study, "position", form=None)
    rows = rows.assign(group=select_axis(rows, "form"), series=select_axis(rows, PLACEMENT_AXIS))
    return sort_by(rows, group=("semantic", "symbol", "reasoning"))


FIGURE = BarFigure(
    needs=("target", "unlearned", "position"),
    select=select,
    description="ROUGE-L F1 × 100 by form and placement of the trigger",
    xlabel="form of the trigger",
    series={placement: placement for placement in PLACEMENTS},
    prefix="backdoored, ",
)
