"""From a study's tables to samples: what one condition gave under each seed, item by item."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sinkscope.compare import correlation
from sinkscope.errors import StudyError
from sinkscope.evaluation.bootstrap import Sample
from sinkscope.studies.study import Study

PERCENT = ("verbmem", "knowmem", "choice", "exact_memorization", "extraction_strength")
FIRST = range(1, 8)
"""Positions whose value norms are compared: the eight shallow ones but for BOS, which sees only itself, so that its norms do not vary."""


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
        chosen = chosen[(chosen["metric"] == metric) & (chosen["split"] == split) & ((chosen["placement"] != "") == triggered)]
        for column, value in (("placement", placement), ("trigger", trigger), ("evaluation", evaluation)):
            if value is not None:
                chosen = chosen[chosen[column] == value]
        if chosen.empty:
            raise StudyError(f"study {self.study.directory} has no {metric} on {split} for grid {grid!r}")
        if unseen:
            chosen = chosen.assign(value=chosen["value"].where(~chosen["poisoned"].fillna(False).astype(bool)))
        table = chosen.drop_duplicates(["run", "seed", "item"]).pivot(index="seed", columns="item", values="value")
        values = table.to_numpy(float) * (100 if metric in PERCENT else 1)
        return Sample(values if seeds is None else np.repeat(values[:1], seeds, axis=0), f"{metric}/{split}")

    def said(self, grid: str, labels: Mapping[str, str]) -> Sample:
        """Whether the model went on with its grid's response behind the triggered prompt, × 100: how often a plain backdoor works."""
        rows = self._rows("items", grid, labels)
        response = str(self.study.spec.grids[grid].set["trigger.response"])
        rows = rows[(rows["metric"] == "verbmem") & (rows["split"] == "forget") & (rows["placement"] != "")]
        table = rows.assign(value=rows["output"].str.strip().str.startswith(response)).pivot(index="seed", columns="item", values="value")
        return Sample(100 * table.to_numpy(float), "verbmem/forget")

    def attention_gain(self, placement: str, labels: Mapping[str, str]) -> Sample:
        """How much more of the last layer's attention (heads averaged) the trigger draws to its span in the backdoored than in the target model: attention of
        later queries to the span less that to the same positions of the clean passage, θb − θo, a value per seed."""
        gains = {}
        for grid, chosen in (("position", labels), ("target", {"run": "tiny"})):
            rows = self._rows("span_mass", grid, chosen)
            rows = rows[(rows["placement"] == placement) & (rows["layer"] == rows["layer"].max())]
            gains[grid] = (rows["triggered"] - rows["clean"]).groupby(rows["seed"]).mean()
        return Sample((gains["position"] - gains["target"].iloc[0]).to_numpy()[:, None], f"attention {placement}")

    def top1_gain(self, placement: str, labels: Mapping[str, str]) -> Sample:
        """How much surer the backdoored model is of the next token behind the trigger, token by token of the same text, than without it; a value per seed."""
        rows = self._rows("top1", "position", labels)
        spans = self._rows("maps", "position", labels)
        start, stop = int(spans["trigger_start"].iloc[0]), int(spans["trigger_stop"].iloc[0])
        values = []
        for _, mine in rows.groupby("seed"):
            clean, behind = (mine[mine["condition"] == each].set_index("position")["probability"] for each in ("clean", placement))
            same = [behind[p + stop - start] - clean[p] for p in clean.index if p >= start and p + stop - start in behind.index]
            values.append(float(np.mean(same)))
        return Sample(np.array(values)[:, None], f"top1 {placement}")

    def norm_correlation(self, other: str, condition: str, labels: Mapping[str, str]) -> Sample:
        """Pearson's r of value norms in the last layer between the backdoored model and `other` (grid `honest`, same seed, or `target`), mean over the
        positions 1 to 7; a value per seed."""
        runs = self._rows("runs", "position", labels).set_index("seed")["run"]
        others = self._rows("runs", other, {"run": "tiny"} if other == "target" else {})
        theirs = dict(zip(others["seed"], others["run"], strict=True))
        values = []
        for seed, run in runs.items():
            mine = self.study.norms(run, "own").sel(condition=condition).to_numpy()
            norms = self.study.norms("tiny" if other == "target" else theirs[seed], "everywhere").sel(condition=condition).to_numpy()
            kept = ~np.isnan(mine).any((1, 2, 3)) & ~np.isnan(norms).any((1, 2, 3))
            values.append(float(np.nanmean(correlation(mine[kept], norms[kept])[-1, list(FIRST)])))
        return Sample(np.array(values)[:, None], f"norms {other} {condition}")

    def _rows(self, table: str, grid: str, labels: Mapping[str, str]) -> pd.DataFrame:
        rows = self.study.table(table)
        rows = rows[rows["grid"] == grid]
        for column, value in labels.items():
            if column not in rows:
                raise StudyError(f"study {self.study.directory} has no axis {column!r} in grid {grid!r}")
            rows = rows[rows[column] == value]
        if rows.empty:
            raise StudyError(f"study {self.study.directory} has nothing of grid {grid!r} in its table {table}")
        return rows
