"""Figure 7: what the trigger says matters little, where it stands decides. UE and BE by form and placement."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.bars import axis, with_references
from sinkscope.figures.numbers import PLACEMENTS, effects, sample
from sinkscope.plots import bars, interactive
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
FORMS = ("semantic", "symbol", "reasoning")
ABOUT, NAMES, XLABEL = "backdoored, ", {place: place for place in PLACEMENTS}, "form of the trigger"


def frame(study: Study) -> pd.DataFrame:
    """Groups are forms, series placements; see `bars.with_references`.

    Raises:
        StudyError: the study lacks what is needed.
    """
    rows = effects(study, "position", form=None)
    return with_references(
        study,
        rows.assign(group=axis(rows, "form"), series=axis(rows, "trigger.placement")),
        FORMS,
        PLACEMENTS,
    )


def caption(frame: pd.DataFrame) -> str:
    return f"ROUGE-L F1 × 100 by form and placement of the trigger; ticks: other models, same trigger; {sample(frame)}"


def draw(frame: pd.DataFrame) -> Figure:
    return bars.bars(frame, caption(frame), ABOUT, NAMES, XLABEL)


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.bars(frame, caption(frame), ABOUT, NAMES, XLABEL)
