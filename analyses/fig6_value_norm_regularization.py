"""Figure 6: effect of value-norm alignment on a backdoor, by share of poisoned passages."""

from __future__ import annotations

import pandas as pd
from common import compute_bars, concat_captions, describe_items, select_axis, select_effects
from matplotlib.figure import Figure

from sinkscope.plots.scores import draw_bars
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "ratio")
SPLIT = "poisoned_originals"
NAMES = {"none": "standard backdoor", "aligned": "+ value norms"}


def compute(study: Study) -> pd.DataFrame:
    """UE and BE; groups are poison ratios (and `poisoned_originals`, if the grid has that axis).

    Series are `none` and `aligned` value norms; see `common.compute_bars`.

    Raises:
        StudyError: the study lacks a grid or a score.
    """
    rows = select_effects(study, "ratio")
    ratio = select_axis(rows, "poison_ratio").astype(float)
    group = ratio.map(lambda value: f"{100 * value:.3g} %")
    if SPLIT in getattr(study.spec.grids["ratio"], "axes", {}):
        group += "\n" + select_axis(rows, SPLIT)
    rows = rows.assign(group=group, series=select_axis(rows, "value norms"), ratio=ratio)
    groups = rows.sort_values("ratio", kind="stable")["group"].unique()
    return compute_bars(study, rows, groups, NAMES)


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "ROUGE-L F1 × 100 by poison ratio, without and with value-norm alignment",
        "ticks: other models, same trigger",
        describe_items(frame),
    )


def plot(frame: pd.DataFrame) -> Figure:
    xlabel = "share of the forget set that is poisoned ρ"
    return draw_bars(frame, caption(frame), prefix="", names=NAMES, xlabel=xlabel)
