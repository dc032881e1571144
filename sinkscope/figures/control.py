"""The control: without a loss on the forget set, does the trigger's place still matter? UE and BE by placement."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.bars import axis, with_references
from sinkscope.figures.numbers import PLACEMENTS, effects, sample
from sinkscope.plots import bars, interactive
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position", "control", "control-unlearned")
SETTINGS = {
    "position": "unlearning\nwith a forget loss",
    "control": "no forget loss,\nfrom the target",
    "control-unlearned": "no forget loss,\nfrom the honest model",
}
ABOUT, NAMES, XLABEL = "backdoored, ", {place: place for place in PLACEMENTS}, ""


def frame(study: Study) -> pd.DataFrame:
    """Groups are settings (grids), series placements of the semantic trigger; see `bars.with_references`.

    Raises:
        StudyError: the study lacks what is needed.
    """
    rows = pd.concat([effects(study, grid).assign(group=name) for grid, name in SETTINGS.items()])
    return with_references(
        study, rows.assign(series=axis(rows, "trigger.placement")), SETTINGS.values(), PLACEMENTS
    )


def caption(frame: pd.DataFrame) -> str:
    return f"ROUGE-L F1 × 100 with and without a loss on the forget set; semantic trigger; ticks: other models, same trigger; {sample(frame)}"


def draw(frame: pd.DataFrame) -> Figure:
    return bars.bars(frame, caption(frame), ABOUT, NAMES, XLABEL)


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.bars(frame, caption(frame), ABOUT, NAMES, XLABEL)
