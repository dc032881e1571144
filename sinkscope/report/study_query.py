"""Models of a study: runs grouped over seeds, with their scores and captures."""

from __future__ import annotations

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
    def first(self) -> dict[str, Any]:
        """The first run: role, trigger, trigger_placement (of training) and the axes."""
        return dict(self.runs.iloc[0])


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
        groups = []
        for _, runs in self.runs.groupby(["grid", *self.axes, "role"], sort=False, dropna=False):
            first = runs.iloc[0]
            values = [str(first[axis]) for axis in self.axes if not pd.isna(first[axis])]
            label = " ".join([str(first["grid"]), *values])
            if runs["seed"].duplicated().any() or self._has_several_models(first["grid"]):
                by_run = runs.groupby("run", sort=False)
                groups += [ModelGroup(f"{label} {name}", each, True) for name, each in by_run]
            else:
                groups.append(ModelGroup(label, runs, False))
        return groups

    def _has_several_models(self, grid: str) -> bool:
        """Whether the runs of a grid start from several given models."""
        config = self.study.spec.grids.get(grid)
        if isinstance(config, ModelGrid):
            return len(config.models) > 1
        parent = parent_of(config) if config else None
        return parent is not None and self._has_several_models(parent)

    def rows(self, table: pd.DataFrame, group: ModelGroup) -> pd.DataFrame:
        """The rows of a table about a group: points of a grid can share a run, but differ in measurements."""
        keys = self.run_keys(table)
        near = table[table["grid"].isin(group.runs["grid"]) & table["run"].isin(group.runs["run"])]
        return near.merge(group.runs[keys].drop_duplicates(), on=keys)

    @cached_property
    def mean_scores(self) -> pd.DataFrame:
        """Mean over seeds per model and score: model, metric, split, subset, trigger, placement, value, ...

        `evaluation` is a column where evaluations differ in benchmark or items. Empty without scores.
        """
        scores = self.table("scores")
        if scores.empty:
            return pd.DataFrame()
        keys = [*self.evaluation_key, "metric", "split", "subset", "trigger", "placement"]
        unmasked = scores[scores["mask"] == ""]
        frames = []
        for group in self.groups:
            rows = self.rows(unmasked, group).drop_duplicates([*SCORE_KEYS, *self.evaluation_key])
            if len(rows):
                means = mean_over_seeds(rows, keys)
                means.insert(0, "model", group.label)
                frames.append(means)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def panel_scores(self, group: ModelGroup) -> list[dict[str, Any]]:
        """Mean scores of a group, clean and with its own trigger, for its panel."""
        means = self.mean_scores
        if means.empty:
            return []
        is_own = (means["model"] == group.label) & means["trigger"].isin(["", group.first["trigger"]])
        rows = means[is_own & (means["subset"] != "poisoned")].drop(columns=["model", "trigger"])
        records: list[Any] = rows.assign(triggered=rows["placement"] != "").to_dict("records")
        return records

    def views(self, group: ModelGroup) -> dict[str, dict[str, View]]:
        """Views of a group by placement and condition, mean over runs; {} if nothing was captured.

        A run is counted once per placement: its first capture with that placement.
        """
        attention = self.table("attention")
        if attention.empty:
            return {}
        rows = self.rows(attention, group)
        rows = rows.drop_duplicates(["run", "job", "placement", "layer", "head", "position"])
        by_placement: dict[str, dict[str, dict[str, View]]] = {}
        for (run, job), captured in rows.groupby(["run", "job"], sort=False):
            maps = self.study.patterns(str(job))
            for placement, part in captured.groupby("placement", sort=False):
                runs = by_placement.setdefault(str(placement), {})
                if str(run) not in runs:
                    runs[str(run)] = self._capture_views(str(job), str(placement), part, maps)
        return {
            placement: {
                condition: average_views([views[condition] for views in runs.values()])
                for condition in CONDITIONS
            }
            for placement, runs in by_placement.items()
        }

    def _capture_views(
        self, job: str, placement: str, attention: pd.DataFrame, maps: xr.DataArray
    ) -> dict[str, View]:
        differences, passage = (
            table[(table["job"] == job) & (table["placement"] == placement)]
            for table in (self.study.table("maps"), self.study.table("passage"))
        )
        tokens = passage.drop_duplicates(["condition", "position"])
        spans = (None, trigger_span(differences))
        return build_views(attention, tokens, maps.sel(placement=placement), spans)
