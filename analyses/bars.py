"""Bar figures of UE and BE, declared by what their groups and series are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from common import MEMORY, concat_captions, describe_items, select_effects, sort_by
from matplotlib.figure import Figure

from sinkscope.plots.scores import REFERENCES, draw_bars
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

EFFECTS = ("UE", "BE")


@dataclass(frozen=True)
class BarFigure:
    """UE and BE of backdoored models by group and series, with those of the reference models.

    Attributes:
        needs: the grids that it is made from.
        select: `select_effects` of backdoored runs with the columns `group` and `series`, which name the bar;
            groups are in their order.
        description: the first part of the caption.
        xlabel: what the groups are.
        series: the series in order -> names in the legend, after `prefix`.
    """

    needs: tuple[str, ...]
    select: Callable[[Study], pd.DataFrame]
    description: str
    xlabel: str
    series: Mapping[str, str]
    prefix: str = ""

    def compute(self, study: Study) -> pd.DataFrame:
        """A row per metric, score (UE, BE), subset, model and bar: value, interval, n, seeds.

        Reference models (`unlearned`, `target`) get the same trigger at the same placement; they have rows on
        all items only.

        Raises:
            StudyError: the study lacks a grid or a score.
        """
        rows = self.select(study)
        groups = rows["group"].unique()
        rows = rows[rows["score"].isin(EFFECTS)]
        bars = rows[rows["score"] == "BE"][["trigger", "placement", "group", "series"]].drop_duplicates()
        parts = [rows.assign(model="backdoored")]
        for model in REFERENCES:
            scores = select_effects(study, model, form=None)
            scores = scores[(scores["subset"] == "all") & scores["score"].isin(EFFECTS)]
            names = bars[["group", "series"]].drop_duplicates()
            clean = scores[scores["score"] == "UE"].merge(names, how="cross")
            triggered = scores.merge(bars, on=["trigger", "placement"])
            parts += [clean.assign(model=model), triggered.assign(model=model)]
        means = mean_over_seeds(pd.concat(parts), ["metric", "score", "subset", "model", "group", "series"])
        models, subsets = ("backdoored", *REFERENCES), ("all", "unseen")
        order = {"metric": MEMORY, "score": EFFECTS, "model": models, "subset": subsets}
        return sort_by(means, **order, group=groups, series=self.series)

    def caption(self, frame: pd.DataFrame) -> str:
        bars = "bars: backdoored models, on items whose passage was not poisoned"
        ticks = "ticks: other models, same trigger"
        return concat_captions(self.description, bars, ticks, describe_items(frame))

    def plot(self, frame: pd.DataFrame) -> Figure:
        note = describe_items(frame)
        return draw_bars(frame, note, prefix=self.prefix, names=self.series, xlabel=self.xlabel)
