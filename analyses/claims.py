"""Claims as tests on a study: effects with their intervals, p values and a verdict.

A claim states beforehand what would be too small to matter (`margin`). It is *reproduced* if its effect lies
beyond the margin, not merely on the right side of 0 (a minimum-effect test), *not reproduced* if the whole
interval lies on the other side. Of a conjunction every part has to hold; one part that fails is enough for
*not reproduced*. A claim is *not testable* if a condition that it presupposes is not met, or if the study
lacks what it needs. Everything else is *inconclusive*, and so is a result of a single target and seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from bootstrap import Effect, Interval, Sample, bootstrap_interval, measure_targets
from common import wrap_missing_data
from samples import Condition

from sinkscope.errors import StudyError, UserError
from sinkscope.studies.study import Study

Verdict = Literal["reproduced", "not reproduced", "not testable", "inconclusive"]
Kind = Literal["above", "within", "at most"]
POINTS = "points"
ATTENTION = "of θo's attention to the trigger"
PROBABILITY = "probability"
CORRELATION = "Pearson's r"
NATS = "nats a token"
MARGINS = {POINTS: 5.0, ATTENTION: 0.25, PROBABILITY: 0.02, CORRELATION: 0.02, NATS: 0.1}
"""The smallest effect that matters, by its unit: fixed before any claim was judged."""
FORGOTTEN = 20.0
"""Points by which unlearning has to lower a target's score, else nothing was forgotten that could return."""
RATIO = 1.5
"""A score counts as that of an unlearned model up to this multiple."""
SOURCES = [*(f"Fig. {i}" for i in range(2, 8)), *(f"Table {i}" for i in (1, 2, 3))]
SOURCES += ["control", "stability", "stealth"]
"""Figures, tables and other results that claims are about."""
LEVEL = 0.025
"""Level of the one-sided tests."""
COLUMNS = [
    *["source", "claim", "poisoned_originals", "metric", "part", "effect", "ci_low", "ci_high", "unit"],
    *["kind", "margin", "p", "p_holm", "targets", "seeds", "items", "verdict", "reason"],
]
UNMET = "not met: "
SIGNS = {"above": "≥", "within": "±", "at most": "≤"}
NOTE = (
    "Effect with its 95 % interval (crossed bootstrap, corrected for few seeds). A claim is reproduced if "
    "the whole interval is beyond its margin (above it, ≥; below it, ≤; within it, ±) and its one-sided p is "
    "at most .025, not reproduced if the whole interval is on the other side. Of a conjunction the part with "
    "the largest p is printed. keep: the clean versions of poisoned passages stay in the forget set, as in "
    "the paper's formula; drop: they leave it, as in the authors' code."
)


@dataclass(frozen=True)
class Comparison:
    """An effect of measured conditions, compared with a margin.

    Attributes:
        statement: what it means that the effect is beyond the margin.
        kind: beyond the margin is above it, below it (`at most`) or between −margin and margin (`within`).
        margin: None: that of the unit.
    """

    statement: str
    conditions: Sequence[Condition]
    effect: Effect
    kind: Kind = "above"
    margin: float | None = None
    unit: str = POINTS

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise UserError(f"comparison {self.statement!r} has the unknown kind {self.kind!r}; use {known}")
        if self.margin is None and self.unit not in MARGINS:
            raise UserError(f"comparison {self.statement!r}: there is no margin for {self.unit!r}; give one")

    @property
    def limit(self) -> float:
        return MARGINS[self.unit] if self.margin is None else self.margin

    def measure(self, study: Study) -> Interval:
        """The effect.

        Raises:
            StudyError: the study lacks a condition.
        """
        with wrap_missing_data(f"study {study.directory}"):
            return bootstrap_interval(self._samples(study), self.effect)

    def value(self, study: Study) -> float:
        """The effect without its interval, which takes far longer.

        Raises:
            StudyError: the study lacks a condition.
        """
        with wrap_missing_data(f"study {study.directory}"):
            return float(measure_targets(self._samples(study), self.effect).mean())

    def _samples(self, study: Study) -> list[Sample]:
        return [each.measure(study) for each in self.conditions]

    def p(self, result: Interval) -> float:
        """One-sided p of an effect beyond the margin; of `within`, the larger one of its two tests."""
        tests = {
            "above": [result.p_above(self.limit)],
            "at most": [result.p_below(self.limit)],
            "within": [result.p_above(-self.limit), result.p_below(self.limit)],
        }
        return float(np.max(tests[self.kind]))

    def is_beyond(self, low: float, high: float) -> bool:
        """Whether all effects from `low` to `high` are beyond the margin."""
        bounds = {
            "above": (self.limit, math.inf),
            "at most": (-math.inf, self.limit),
            "within": (-self.limit, self.limit),
        }
        lowest, highest = bounds[self.kind]
        return lowest <= low and high <= highest

    def is_short(self, result: Interval) -> bool:
        """Whether the whole interval is on the other side of the margin."""
        is_low, is_high = result.high < self.limit, result.low > self.limit
        within = is_high or result.high < -self.limit
        return {"above": is_low, "at most": is_high, "within": within}[self.kind]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper (or ours, if marked) that every one of its comparisons holds.

    Attributes:
        originals: whether the forget set of its runs keeps the clean versions of poisoned passages (`keep`,
            `drop`).
        metric: what it is measured by.
        requires: what has to hold on average, else the claim is not testable.
    """

    source: str
    statement: str
    originals: str
    metric: str
    comparisons: Sequence[Comparison]
    requires: Sequence[Comparison] = ()

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            known = ", ".join(SOURCES)
            raise UserError(f"claim {self.statement!r} has the unknown source {self.source!r}; use {known}")
        if not self.comparisons:
            raise UserError(f"claim {self.statement!r} compares nothing; give it a comparison")

    def row(self) -> dict[str, object]:
        """The columns that need no study."""
        about = {"source": self.source, "claim": self.statement}
        return about | {"poisoned_originals": self.originals, "metric": self.metric}


@dataclass(frozen=True)
class Outcome:
    """Results of a claim on a study: an interval for each comparison, and the conditions that are not met."""

    claim: Claim
    results: Sequence[Interval]
    unmet: Sequence[str]

    @classmethod
    def measure(cls, claim: Claim, study: Study) -> Outcome:
        """Raises a StudyError if the study lacks a condition."""
        unmet = []
        for each in claim.requires:
            value = each.value(study)
            if not each.is_beyond(value, value):
                needed = f"{SIGNS[each.kind]} {each.limit:g}"
                unmet.append(f"{UNMET}{each.statement} ({value:.1f} {each.unit}, needed {needed})")
        return cls(claim, [each.measure(study) for each in claim.comparisons], unmet)

    @property
    def p_values(self) -> list[float]:
        return [
            comparison.p(result)
            for comparison, result in zip(self.claim.comparisons, self.results, strict=True)
        ]

    @property
    def p(self) -> float:
        """Of a conjunction the largest of its parts; NaN without several targets or seeds."""
        return float(np.max(self.p_values))

    def decide(self, p: float, *, is_corrected: bool) -> Verdict:
        """The verdict (see the module); without correction whole intervals have to be beyond the margin."""
        if self.unmet:
            return "not testable"
        if math.isnan(self.p):
            return "inconclusive"
        parts = list(zip(self.claim.comparisons, self.results, strict=True))
        if any(comparison.is_short(result) for comparison, result in parts):
            return "not reproduced"
        is_beyond = is_corrected or all(each.is_beyond(result.low, result.high) for each, result in parts)
        return "reproduced" if p <= LEVEL and is_beyond else "inconclusive"

    def rows(self) -> list[dict[str, object]]:
        """A row for each comparison, without a verdict."""
        return [
            self.claim.row()
            | {
                "part": comparison.statement,
                "effect": result.value,
                "ci_low": result.low,
                "ci_high": result.high,
                "unit": comparison.unit,
                "kind": comparison.kind,
                "margin": comparison.limit,
                "p": p,
                "targets": result.targets,
                "seeds": result.seeds,
                "items": result.items,
            }
            for comparison, result, p in zip(self.claim.comparisons, self.results, self.p_values, strict=True)
        ]

    def row(self) -> dict[str, object]:
        """The row of the comparison with the largest p."""
        return self.rows()[int(np.argmax(self.p_values))]


def judge(study: Study, claims: Iterable[Claim]) -> pd.DataFrame:
    """A row per claim with the columns `COLUMNS`; every claim is tested on its own.

    What the study lacks makes a claim not testable, with the reason.
    """
    rows: list[dict[str, object]] = []
    for claim in claims:
        try:
            outcome = Outcome.measure(claim, study)
        except StudyError as error:
            first = claim.comparisons[0]
            about = {"unit": first.unit, "kind": first.kind, "margin": first.limit}
            rows.append(claim.row() | about | {"verdict": "not testable", "reason": str(error)})
            continue
        rows.append(_judge(outcome, outcome.p, is_corrected=False))
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def judge_family(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """A row per claim; Holm's correction among all of them. One that is not testable counts as p = 1."""
    p = [1.0 if each.unmet or math.isnan(each.p) else each.p for each in outcomes]
    rows = [
        _judge(outcome, corrected, is_corrected=True) | {"p_holm": corrected}
        for outcome, corrected in zip(outcomes, holm(p), strict=True)
    ]
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _judge(outcome: Outcome, p: float, *, is_corrected: bool) -> dict[str, object]:
    single = "one seed does not generalize to others" if math.isnan(outcome.p) else ""
    verdict = outcome.decide(p, is_corrected=is_corrected)
    return outcome.row() | {"verdict": verdict, "reason": "; ".join(outcome.unmet) or single}


def holm(p: Sequence[float]) -> list[float]:
    """p values with Holm's step-down correction for the probability of any false rejection."""
    order = np.argsort(p, kind="stable")
    steps = (len(p) - np.arange(len(p))) * np.asarray(p)[order]
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected.tolist()


def format_effect(row: pd.Series) -> str:
    """Effect and interval, in the unit's decimals; – if nothing was measured."""
    if pd.isna(row["effect"]):
        return "–"
    digits = 1 if row["unit"] == POINTS else 3
    value, low, high = (f"{row[key]:.{digits}f}" for key in ("effect", "ci_low", "ci_high"))
    return f"{value} ({low} to {high})"


def format_margin(row: pd.Series) -> str:
    return f"{SIGNS[row['kind']]} {row['margin']:g} {row['unit']}"


def summarize(table: pd.DataFrame) -> str:
    """Counts of verdicts in one line, and how many claims lacked data with the first reason."""
    missing, tested = table[table["effect"].isna()], table[table["effect"].notna()]
    parts = [f"{count} {verdict}" for verdict, count in tested["verdict"].value_counts().items()]
    if len(missing):
        more = "; and more" if missing["reason"].nunique() > 1 else ""
        parts.append(f"{len(missing)} claims could not be tested: {missing['reason'].iloc[0]}{more}")
    return ", ".join(parts)


def format_markdown(table: pd.DataFrame) -> str:
    """A row per claim and metric, the two ways of poisoning side by side."""
    columns = ["source", "claim", "metric", "effect, keep", "verdict", "effect, drop", "verdict", "margin"]
    lines = [f"| {' | '.join(columns)} | seeds, items |", "|---" * 9 + "|"]
    for (source, claim, metric), rows in table.groupby(["source", "claim", "metric"], sort=False):
        cells = [source, claim, metric]
        for originals in ("keep", "drop"):
            part = rows[rows["poisoned_originals"] == originals]
            cells += ["–", "–"] if part.empty else _format_cells(part.iloc[0])
        has_n = rows["seeds"].notna().any()
        n = f"{rows['seeds'].min():.0f}, {rows['items'].min():.0f}" if has_n else "–"
        cells += [format_margin(rows.iloc[0]), n]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", NOTE, ""])


def _format_cells(row: pd.Series) -> list[str]:
    """Effect, of a conjunction with its part, and verdict, with a condition that is not met."""
    is_part = pd.notna(row["part"]) and row["part"] != row["claim"]
    is_unmet = str(row["reason"]).startswith(UNMET)
    return [
        format_effect(row) + (f": {row['part']}" if is_part else ""),
        row["verdict"] + (f" ({row['reason']})" if is_unmet else ""),
    ]
