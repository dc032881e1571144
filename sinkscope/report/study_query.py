"""Models of a study: runs grouped over seeds, with their scores and captures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import xarray as xr

from sinkscope.errors import StudyError
from sinkscope.report.payload import CONDITIONS, View, average_views, build_views
from sinkscope.sinks.compare import trigger_span
from sinkscope.studies.aggregation import SCORE_KEYS, mean_over_seeds
from sinkscope.studies.grids import ModelGrid, parent_of
from sinkscope.studies.study import Study

PLACEMENT_AXIS = "trigger.placement"
NOT_AXES = ("grid", "run", "seed", "role", "benchmark", "trigger", "trigger_placement")


@dataclass(frozen=True)
class ModelGroup:
    """Runs that differ in the seed only. `is_given`: one of several given models, which have no seeds."""

    label: str
    runs: pd.DataFrame
    is_given: bool

    @property
    def role(self) -> str:
        return str(self.runs["role"].iloc[0])

    @property
    def trigger(self) -> str:
        return str(self.runs["trigger"].iloc[0])

    @property
    def placement(self) -> str:
        """The placement that the models were trained with."""
        return str(self.runs["trigger_placement"].iloc[0])


class StudyQuery:
    """The tables of a study by model."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.runs = study.table("runs")
        self.axes = [column for column in self.runs.columns if column not in NOT_AXES]

    def table(self, name: str) -> pd.DataFrame:
        """A table of the study; an empty one if the study has none."""
        try:
            return self.study.table(name)
        except StudyError:
            return pd.DataFrame()

    @cached_property
    def evaluation_key(self) -> list[str]:
        """`evaluation` if evaluations differ in benchmark or items, so that equal metrics differ."""
        evaluations = self.study.spec.evaluations.values()
        return ["evaluation"] if len({(each.benchmark, each.limit) for each in evaluations}) > 1 else []

    def run_keys(self, table: pd.DataFrame) -> list[str]:
        """The columns of a table that identify a run of a grid."""
        return [key for key in ("grid", *self.axes, "run", "seed") if key in table]

    @cached_property
    def groups(self) -> list[ModelGroup]:
        """The models of the study, in the order of its grids."""
        return list(self._groups())

    def _groups(self) -> Iterator[ModelGroup]:
        for _, runs in self.runs.groupby(["grid", *self.axes, "role"], sort=False, dropna=False):
            first = runs.iloc[0]
            values = [str(first[axis]) for axis in self.axes if not pd.isna(first[axis])]
            label = " ".join([str(first["grid"]), *values])
            if runs["seed"].duplicated().any() or self._has_several_models(str(first["grid"])):
                for name, each in runs.groupby("run", sort=False):
                    yield ModelGroup(f"{label} {name}", each, True)
            else:
                yield ModelGroup(label, runs, False)

    def _has_several_models(self, grid: str) -> bool:
        """Whether the runs of a grid start from several given models."""
        config = self.study.spec.grids.get(grid)
        if config is None:
            return False
        if isinstance(config, ModelGrid):
            return len(config.models) > 1
        parent = parent_of(config)
        return parent is not None and self._has_several_models(parent)

    def rows(self, table: pd.DataFrame, group: ModelGroup) -> pd.DataFrame:
        """The rows of a table about a group: points of a grid can share a run, but differ in measurements."""
        keys = self.run_keys(table)
        near = table[table["grid"].isin(group.runs["grid"]) & table["run"].isin(group.runs["run"])]
        return near.merge(group.runs[keys].drop_duplicates(), on=keys)

    def scores(self, group: ModelGroup, scores: pd.DataFrame) -> pd.DataFrame:
        """The scores of a group without a mask, each once."""
        rows = self.rows(scores[scores["mask"] == ""], group)
        return rows.drop_duplicates([*SCORE_KEYS, *self.evaluation_key])

    @cached_property
    def mean_scores(self) -> pd.DataFrame:
        """Mean over seeds per model and score: model, metric, split, subset, trigger, placement, value, ...

        `evaluation` is a column where evaluations differ in benchmark or items.
        """
        scores = self.table("scores")
        keys = [*self.evaluation_key, "metric", "split", "subset", "trigger", "placement"]
        frames = []
        for group in self.groups if len(scores) else ():
            rows = self.scores(group, scores)
            if len(rows):
                frames.append(mean_over_seeds(rows, keys).assign(model=group.label))
        if not frames:
            return pd.DataFrame()
        table = pd.concat(frames, ignore_index=True)
        return table[["model", *table.columns.drop("model")]]

    def panel_scores(self, group: ModelGroup) -> list[dict[str, Any]]:
        """Mean scores of a group, clean and with its own trigger, for its panel."""
        means = self.mean_scores
        if means.empty:
            return []
        is_own = (means["model"] == group.label) & means["trigger"].isin(["", group.trigger])
        rows = means[is_own & (means["subset"] != "poisoned")].drop(columns=["model", "trigger"])
        rows = rows.assign(triggered=rows["placement"] != "")
        return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]

    def views(self, group: ModelGroup) -> dict[str, dict[str, View]]:
        """Views of a group by placement and condition, mean over runs; {} if nothing was captured.

        A run is counted once per placement: its first capture with that placement.
        """
        attention = self.table("attention")
        if attention.empty:
            return {}
        rows = self.rows(attention, group)
        rows = rows.drop_duplicates(["run", "job", "placement", "layer", "head", "position"])
        by_placement: dict[str, list[dict[str, View]]] = {}
        done: set[tuple[str, str]] = set()
        for (run, job), captured in rows.groupby(["run", "job"], sort=False):
            maps = self.study.patterns(str(job))
            for placement, attention in captured.groupby("placement", sort=False):
                if (str(run), str(placement)) not in done:
                    done.add((str(run), str(placement)))
                    views = self._capture_views(str(job), str(placement), attention, maps)
                    by_placement.setdefault(str(placement), []).append(views)
        return {
            placement: {
                condition: average_views([each[condition] for each in runs]) for condition in CONDITIONS
            }
            for placement, runs in by_placement.items()
        }

    def _capture_views(
        self, job: str, placement: str, attention: pd.DataFrame, maps: xr.DataArray
    ) -> dict[str, View]:
        differences, passage = (self._of_capture(name, job, placement) for name in ("maps", "passage"))
        tokens = passage.drop_duplicates(["condition", "position"])
        return build_views(
            attention, tokens, maps.sel(placement=placement), (None, trigger_span(differences))
        )

    def _of_capture(self, name: str, job: str, placement: str) -> pd.DataFrame:
        table = self.study.table(name)
        return table[(table["job"] == job) & (table["placement"] == placement)]
