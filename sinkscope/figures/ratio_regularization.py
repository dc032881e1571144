"""Figure 6: what aligning value norms adds to a backdoor, by share of poisoned passages. UE and BE."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.figures.bars import axis, with_references
from sinkscope.figures.numbers import effects, sample
from sinkscope.plots import bars, interactive
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "ratio")
SPLIT = "poisoned_originals"
ABOUT, NAMES, XLABEL = (
    "",
    {"none": "standard backdoor", "aligned": "+ value norms"},
    "share of the forget set that is poisoned ρ",
)


def frame(study: Study) -> pd.DataFrame:
    """Groups are poison ratios (and ways to split off the poisoned, where the grid has that axis), series `none` and `aligned` value norms; see
    `bars.with_references`.

    Raises:
        StudyError: the study lacks what is needed.
    """
    rows = effects(study, "ratio")
    ratio = axis(rows, "poison_ratio").astype(float)
    split = "\n" + axis(rows, SPLIT) if SPLIT in study.spec.grids["ratio"].axes else ""
    rows = rows.assign(
        group=ratio.map(lambda value: f"{100 * value:.3g} %") + split,
        series=axis(rows, "value norms"),
        ratio=ratio,
    )
    return with_references(study, rows, rows.sort_values("ratio", kind="stable")["group"].unique(), NAMES)


def caption(frame: pd.DataFrame) -> str:
    return f"ROUGE-L F1 × 100 by poison ratio, without and with value-norm alignment; ticks: other models, same trigger; {sample(frame)}"


def draw(frame: pd.DataFrame) -> Figure:
    return bars.bars(frame, caption(frame), ABOUT, NAMES, XLABEL)


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive.bars(frame, caption(frame), ABOUT, NAMES, XLABEL)
