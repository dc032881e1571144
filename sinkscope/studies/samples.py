"""From a study's tables to samples: what one condition gave under each seed, item by item."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sinkscope.errors import StudyError
from sinkscope.evaluation.statistics import Sample
from sinkscope.sinks.captures import select_common_passages
from sinkscope.sinks.comparison import correlation
from sinkscope.studies.study import Study

PERCENT = ("verbmem", "knowmem", "choice", "exact_memorization", "extraction_strength")
BEHIND = range(12, 16)
"""Positions whose value norms are compared: the first behind a prefix trigger (of 10 tokens, 11 with a space). At those before it, BOS and the trigger, all
passages read the same, so that norms vary over heads alone."""


class Samples:
    """Looks conditions up in a study."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def scored(
        self,
        grid: str,
        metric: str,
        split: str,
        *,
        labels: Mapping[str, str] | None = None,
        triggered: bool = False,
        placement: str | None = None,
        trigger: str | None = None,
        evaluation: str | None = None,
        unseen: bool = False,
        seeds: int | None = None,
    ) -> Sample:
        """Items of one metric and split, × 100 where they are shares. Without `triggered` clean; with it at `placement` and with `trigger` where several were
        tried. `unseen` leaves out items whose passage was poisoned under a seed. `seeds` repeats a model that has no seeds (the target) so many times.

        Raises:
            StudyError: the study has no such items.
        """
        chosen = self._rows("items", grid, labels or {})
        chosen = chosen[
            (chosen["metric"] == metric)
            & (chosen["split"] == split)
            & ((chosen["placement"] != "") == triggered)
        ]
        for column, value in (("placement", placement), ("trigger", trigger), ("evaluation", evaluation)):
            if value is not None:
                chosen = chosen[chosen[column] == value]
        if chosen.empty:
            raise StudyError(f"study {self.study.directory} has no {metric} on {split} for grid {grid!r}")
        if chosen.duplicated(["seed", "item"]).any():
            raise StudyError(
                f"study {self.study.directory} scored {metric} on {split} more than once for grid {grid!r}; give it no other axes or evaluations"
            )
        if unseen:
            chosen = chosen.assign(
                value=chosen["value"].where(~chosen["poisoned"].fillna(False).astype(bool))
            )
        table = chosen.pivot(index="seed", columns="item", values="value")
        values = table.to_numpy(float) * (100 if metric in PERCENT else 1)
        if seeds is not None:
            return Sample(np.repeat(values[:1], seeds, axis=0), f"{metric}/{split}")
        return Sample(values, f"{metric}/{split}", tuple(table.index))

    def said(self, grid: str, labels: Mapping[str, str]) -> Sample:
        """Whether the model went on with its grid's response behind the triggered prompt, × 100: how often a plain backdoor works."""
        rows = self._rows("items", grid, labels)
        response = str(self.study.spec.grids[grid].set["trigger.response"])
        rows = rows[(rows["metric"] == "verbmem") & (rows["split"] == "forget") & (rows["placement"] != "")]
        table = rows.assign(value=rows["output"].str.strip().str.startswith(response)).pivot(
            index="seed", columns="item", values="value"
        )
        return Sample(100 * table.to_numpy(float), "verbmem/forget", tuple(table.index))

    def attention_gain(self, placement: str, grid: str, labels: Mapping[str, str]) -> Sample:
        """How much more of the last layer's attention (heads averaged) the trigger draws to its span in the backdoored than in the target model: attention of
        later queries to the span less that to the same positions of the clean passage, θb − θo, a value per seed."""
        gains = {}
        for each, chosen in ((grid, labels), ("target", {"run": "tiny"})):
            rows = self._placed("span_mass", each, chosen, placement)
            rows = rows[rows["layer"] == rows["layer"].max()]
            gains[each] = rows["difference"].groupby(rows["seed"]).mean()
        return _by_seed(gains[grid] - gains["target"].iloc[0], f"attention {placement}")

    def top1_gain(self, placement: str, grid: str, labels: Mapping[str, str]) -> Sample:
        """How much surer the backdoored model is of the next token behind the trigger, token by token of the same text, than without it; a value per seed."""
        rows, spans = (self._placed(table, grid, labels, placement) for table in ("top1", "maps"))
        values = {}
        for seed, mine in rows.groupby("seed"):
            start, stop = spans[spans["seed"] == seed][["trigger_start", "trigger_stop"]].iloc[0].astype(int)
            clean, behind = (
                mine[mine["condition"] == each].set_index("position")["probability"]
                for each in ("clean", "triggered")
            )
            same = [
                behind[p + stop - start] - clean[p]
                for p in clean.index
                if p >= start and p + stop - start in behind.index
            ]
            values[seed] = float(np.mean(same))
        return _by_seed(pd.Series(values), f"top1 {placement}")

    def norm_correlation(self, other: str, condition: str, grid: str, labels: Mapping[str, str]) -> Sample:
        """Pearson's r of value norms in the last layer between the backdoored model and `other` (grid `unlearned`, same seed, or `target`), over passages and
        heads, mean over the positions `BEHIND`; a value per seed."""
        mine = self._captures("own", grid, labels)
        theirs = self._captures("everywhere", other, {"run": "tiny"} if other == "target" else {})
        values = {}
        for seed, job in mine.items():
            if other != "target" and seed not in theirs:
                raise StudyError(f"study {self.study.directory} has no run of seed {seed} in grid {other!r}")
            both = [
                self.study.norms(each)
                for each in (job, next(iter(theirs.values())) if other == "target" else theirs[seed])
            ]
            first, second = select_common_passages(condition, *(each.isel(layer=-1) for each in both))
            values[seed] = float(np.nanmean(correlation(first, second)[0, list(BEHIND)]))
        return _by_seed(pd.Series(values), f"norms {other} {condition}")

    def _captures(self, name: str, grid: str, labels: Mapping[str, str]) -> dict[int, str]:
        """The jobs of a grid's captures of one name, by seed."""
        rows = self._rows("top1", grid, labels)
        rows = rows[rows["capture"] == name].drop_duplicates(["seed", "job"])
        if rows.empty or rows["seed"].duplicated().any():
            raise StudyError(
                f"study {self.study.directory} has {'no capture' if rows.empty else 'several captures a seed'} {name!r} for grid {grid!r}"
            )
        return dict(zip(rows["seed"], rows["job"], strict=True))

    def _placed(self, table: str, grid: str, labels: Mapping[str, str], placement: str) -> pd.DataFrame:
        rows = self._rows(table, grid, labels)
        rows = rows[rows["placement"] == placement]
        if rows.empty:
            raise StudyError(
                f"study {self.study.directory} has no capture of grid {grid!r} with the trigger as {placement}"
            )
        return rows

    def _rows(self, table: str, grid: str, labels: Mapping[str, str]) -> pd.DataFrame:
        rows = self.study.table(table)
        rows = rows[rows["grid"] == grid]
        nothing = StudyError(
            f"study {self.study.directory} has nothing of grid {grid!r} in its table {table}"
        )
        if rows.empty:
            raise nothing
        for column, value in labels.items():
            if column not in rows:
                raise StudyError(f"study {self.study.directory} has no axis {column!r} in grid {grid!r}")
            rows = rows[rows[column] == value]
        if rows.empty:
            raise nothing
        return rows


def _by_seed(values: pd.Series, what: str) -> Sample:
    """One number per seed."""
    return Sample(values.to_numpy(float)[:, None], what, tuple(values.index))
