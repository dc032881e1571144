"""From the tables of a study to samples: the values of one condition under each seed, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd
from bootstrap import Sample
from common import PLACEMENT_AXIS, select_axis, select_grid

from sinkscope.errors import StudyError
from sinkscope.sinks.compare import correlation
from sinkscope.studies.captures import select_common_passages
from sinkscope.studies.graph import TINY
from sinkscope.studies.study import Study

PERCENT = ("verbmem", "knowmem", "choice", "exact_memorization", "extraction_strength")
SINKS = range(8)
"""The first positions, whose value norms the paper compares."""
TARGET = {"run": TINY}
MODEL_AXIS = "model"
"""The axis of a grid over targets."""


class Condition(Protocol):
    """Something that a study measured under several seeds."""

    def measure(self, study: Study) -> Sample:
        """Its values.

        Raises:
            StudyError: the study does not have them.
        """
        ...


@dataclass(frozen=True)
class Score:
    """Items of one metric and split of a grid's models, × 100 if they are shares.

    Attributes:
        labels: select runs by axis.
        evaluation: None: the only one.
        is_triggered: without it clean items.
        placement, trigger: of triggered items; None: the only one.
        is_unseen: leaves out items whose passage was poisoned in a run.
        is_seedless: given models, the same for all seeds (targets).
        targets: those that the models come from; None: the only one of the study.
    """

    grid: str
    metric: str
    split: str
    labels: Mapping[str, str] = field(default_factory=dict)
    evaluation: str | None = None
    is_triggered: bool = False
    placement: str | None = None
    trigger: str | None = None
    is_unseen: bool = False
    is_seedless: bool = False
    targets: tuple[str, ...] | None = None

    def measure(self, study: Study) -> Sample:
        rows = _select(study, "items", self.grid, self.labels)
        rows = rows[(rows["metric"] == self.metric) & (rows["split"] == self.split)]
        rows = rows[(rows["placement"] != "") == self.is_triggered]
        for column in ("placement", "trigger", "evaluation"):
            if (value := getattr(self, column)) is not None:
                rows = rows[rows[column] == value]
        rows = rows.assign(target="" if self.targets is None else name_targets(rows))
        names = [""] if self.targets is None else list(self.targets)
        rows = rows[rows["target"].isin(names)]
        if self.is_seedless:
            rows = rows.assign(seed=0)
        what = f"{self.metric} on {self.split}"
        if rows.empty:
            raise StudyError(f"study {study.directory} has no {what} for grid {self.grid!r}")
        if rows.duplicated(["target", "seed", "item"]).any():
            raise StudyError(
                f"study {study.directory} has several scores of {what} for grid {self.grid!r}; "
                "give it no other axes or evaluations"
            )
        seeds, items = sorted(rows["seed"].unique()), sorted(rows["item"].unique())
        cells = pd.MultiIndex.from_product([names, seeds, items], names=["target", "seed", "item"])
        table = rows.set_index(["target", "seed", "item"]).reindex(cells)
        if (missing := table["value"].isna()).any():
            target, seed, item = missing.idxmax()
            of = f" of target {target!r}" if target else ""
            raise StudyError(
                f"study {study.directory}, grid {self.grid!r}: {what} lacks item {item} with seed {seed}{of}"
                "; run the study again"
            )
        if self.is_unseen:
            is_poisoned = table["poisoned"].fillna(False).astype(bool)
            table["value"] = table["value"].where(~is_poisoned)
        values = table["value"].to_numpy(float).reshape(len(names), len(seeds), len(items))
        scale = 100 if self.metric in PERCENT else 1
        named_seeds = None if self.is_seedless else tuple(int(seed) for seed in seeds)
        return Sample(scale * values, f"{self.metric}/{self.split}", named_seeds, self.targets)


def name_targets(rows: pd.DataFrame) -> pd.Series:
    """The target that each row's model comes from: the label on the axis `model`; of given models their
    name."""
    return rows[MODEL_AXIS].fillna(rows["run"]) if MODEL_AXIS in rows else rows["run"]


@dataclass(frozen=True)
class ResponseRate:
    """Whether triggered prompts are continued with the response that their grid trains, × 100.

    In training the response starts after half a passage: 12 or more tokens after a prefix trigger, right
    after a suffix.
    """

    grid: str
    placement: str

    def measure(self, study: Study) -> Sample:
        rows = _select(study, "items", self.grid, {PLACEMENT_AXIS: self.placement})
        rows = rows[(rows["metric"] == "verbmem") & (rows["split"] == "forget") & (rows["placement"] != "")]
        response = str(getattr(study.spec.grids[self.grid], "set", {})["trigger.response"])
        rows = rows.assign(value=rows["output"].str.strip().str.startswith(response))
        table = rows.pivot(index="seed", columns="item", values="value")
        return Sample(100 * table.to_numpy(float)[None], "verbmem/forget", tuple(table.index))


@dataclass(frozen=True)
class AttentionGain:
    """How much more attention of the last layer the trigger receives in θb than in θo; a value per seed.

    The attention of later queries to the trigger's span minus that to the same positions of the clean
    passage, mean over heads, of θb minus of θo.

    Attributes:
        is_clean_subtracted: without it the attention to the trigger alone.
    """

    grid: str
    labels: Mapping[str, str]
    placement: str
    is_clean_subtracted: bool = True

    def measure(self, study: Study) -> Sample:
        gains = {}
        column = "difference" if self.is_clean_subtracted else "span_mass_second"
        for grid, labels in ((self.grid, self.labels), ("target", TARGET)):
            rows = _select_placement(study, "span_mass", grid, labels, self.placement)
            rows = rows[rows["layer"] == rows["layer"].max()]
            gains[grid] = rows[column].groupby(rows["seed"]).mean()
        return _sample_seeds(gains[self.grid] - gains["target"].iloc[0], f"attention {self.placement}")


@dataclass(frozen=True)
class TriggerAttention:
    """The attention of the last layer that the trigger receives from later queries in θo, mean over heads."""

    placement: str

    def measure(self, study: Study) -> Sample:
        rows = _select_placement(study, "span_mass", "target", TARGET, self.placement)
        rows = rows[rows["layer"] == rows["layer"].max()]
        return Sample(np.full((1, 1, 1), rows["span_mass_second"].mean()), f"attention {self.placement}")


@dataclass(frozen=True)
class Top1Gain:
    """The change by the trigger in top-1 probability at the positions after it; a value per seed.

    Attributes:
        is_aligned: compares the same tokens of the text, which the trigger moves to later positions.
    """

    grid: str
    labels: Mapping[str, str]
    placement: str
    is_aligned: bool = False

    def measure(self, study: Study) -> Sample:
        rows = _select_placement(study, "top1", self.grid, self.labels, self.placement)
        spans = _select_placement(study, "maps", self.grid, self.labels, self.placement)
        values = {}
        for seed, part in rows.groupby("seed"):
            span = spans[spans["seed"] == seed][["trigger_start", "trigger_stop"]].iloc[0].astype(int)
            start, stop = span["trigger_start"], span["trigger_stop"]
            clean, triggered = (
                part[part["condition"] == condition].set_index("position")["probability"]
                for condition in ("clean", "triggered")
            )
            shift = stop - start if self.is_aligned else 0
            changes = [
                probability - clean[position - shift]
                for position, probability in triggered.items()
                if position >= stop and position - shift in clean.index
            ]
            values[seed] = float(np.mean(changes))
        return _sample_seeds(pd.Series(values), f"top1 {self.placement}")


@dataclass(frozen=True)
class NormCorrelation:
    """Pearson's r of value norms in the last layer between θb and another model; a value per seed.

    Over passages and heads, mean over the first positions, `SINKS`.

    Attributes:
        other: the grid of the other model: `unlearned` (the run of the next seed, as divergences are) or
            `target`.
        condition: of the passages: `clean`, a placement of the trigger, or `retain`.
    """

    grid: str
    labels: Mapping[str, str]
    other: str
    condition: str

    def measure(self, study: Study) -> Sample:
        captures = _find_captures(study, "own", self.grid, self.labels)
        is_target = self.other == "target"
        others = _find_captures(study, "everywhere", self.other, TARGET if is_target else {})
        if not is_target and len(others) < 2:
            raise StudyError(f"study {study.directory} has no second seed in grid {self.other!r}")
        values = {}
        for seed, job in captures.items():
            norms = [study.norms(each).isel(layer=-1) for each in (job, others[next_seed(others, seed)])]
            first, second = select_common_passages(self.condition, *norms)
            values[seed] = float(np.nanmean(correlation(first, second)[0, list(SINKS)]))
        return _sample_seeds(pd.Series(values), f"norms {self.other} {self.condition}")


def next_seed(seeds: Iterable[int], seed: int) -> int:
    """The next larger of `seeds`, after the largest the smallest: another one if there are several."""
    return min(seeds, key=lambda each: (each <= seed, each))


def _find_captures(study: Study, name: str, grid: str, labels: Mapping[str, str]) -> dict[int, str]:
    """Seed -> job of a grid's captures of one name."""
    rows = _select(study, "top1", grid, labels)
    rows = rows[rows["capture"] == name].drop_duplicates(["seed", "job"])
    if rows.empty or rows["seed"].duplicated().any():
        what = "no capture" if rows.empty else "several captures a seed"
        raise StudyError(f"study {study.directory} has {what} {name!r} for grid {grid!r}")
    return dict(zip(rows["seed"], rows["job"], strict=True))


def _select_placement(
    study: Study, table: str, grid: str, labels: Mapping[str, str], placement: str
) -> pd.DataFrame:
    rows = _select(study, table, grid, labels)
    rows = rows[rows["placement"] == placement]
    if rows.empty:
        raise StudyError(
            f"study {study.directory} has no capture of grid {grid!r} with the trigger as {placement}"
        )
    return rows


def _select(study: Study, table: str, grid: str, labels: Mapping[str, str]) -> pd.DataFrame:
    rows = select_grid(study, table, grid, form=None)
    for axis, value in labels.items():
        rows = rows[select_axis(rows, axis) == value]
    if rows.empty:
        raise StudyError(f"study {study.directory}: grid {grid!r} lacks runs of {labels} in table {table!r}")
    return rows


def _sample_seeds(values: pd.Series, items: str) -> Sample:
    """A sample of one number per seed."""
    return Sample(values.to_numpy(float)[None, :, None], items, tuple(values.index))
