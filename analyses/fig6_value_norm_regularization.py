"""Figure 6: effect of value-norm alignment on a backdoor, by share of poisoned passages."""

from __future__ import annotations

import pandas as pd
from bars import BarFigure
from common import select_axis, select_effects

from sinkscope.studies.study import Study

SPLIT = "poisoned_originals"


def select(study: Study) -> pd.DataFrame:
    """Groups are poison ratios (and `poisoned_originals`, if the grid has that axis), series value norms."""
    rows = select_effects(study, "ratio")
    ratio = select_axis(rows, "poison_ratio").astype(float)
    group = ratio.map(lambda value: f"{100 * value:.3g} %")
    if SPLIT in getattr(study.spec.grids["ratio"], "axes", {}):
        group += "\n" + select_axis(rows, SPLIT)
    rows = rows.assign(group=group, series=select_axis(rows, "value norms"), ratio=ratio)
    return rows.sort_values("ratio", kind="stable")


FIGURE = BarFigure(
    needs=("target", "unlearned", "ratio"),
    select=select,
    description="ROUGE-L F1 × 100 by poison ratio, without and with value-norm alignment",
    xlabel="poisoned share ρ of the forget set; clean versions of\n"
    "poisoned passages stay in the forget set (keep) or not (drop)",
    series={"none": "standard backdoor", "aligned": "+ value norms"},
)
