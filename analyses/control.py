"""Control: UE and BE by placement of the trigger, without a loss on the forget set."""

from __future__ import annotations

import pandas as pd
from bars import BarFigure
from common import PLACEMENT_AXIS, PLACEMENTS, select_axis, select_effects

from sinkscope.studies.study import Study

SETTINGS = {
    "position": "unlearning\nwith a forget loss",
    "control": "no forget loss,\nfrom the target",
    "control-unlearned": "no forget loss,\nfrom the unlearned model",
}


def select(study: Study) -> pd.DataFrame:
    """Groups are settings (grids), series placements of the semantic trigger."""
    rows = pd.concat([select_effects(study, grid).assign(group=name) for grid, name in SETTINGS.items()])
    return rows.assign(series=select_axis(rows, PLACEMENT_AXIS))


FIGURE = BarFigure(
    needs=("target", "unlearned", *SETTINGS),
    select=select,
    description="ROUGE-L F1 × 100 with and without a loss on the forget set; semantic trigger",
    xlabel="",
    series={placement: placement for placement in PLACEMENTS},
    prefix="backdoored, ",
)
