"""Claims as tests on a study: an effect with its interval, and a verdict.

Every claim states beforehand which effect would be too small to matter (`margin`). A claim that an effect
exists (`above`) is *reproduced* if the whole interval is above 0 and the effect is at least the margin, *not
reproduced* if the whole interval is below the margin. A claim of equivalence (`within`) is reproduced if the
whole interval is within ± margin (two one-sided tests), not reproduced if none of it is. A claim that
something is no worse (`at most`) is reproduced if the whole interval is below the margin, not reproduced if
none of it is. Everything else is *inconclusive*, and so is a result of one seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from bootstrap import Effect, Interval, Sample, bootstrap_interval
from common import wrap_missing_data
from samples import Condition, Score

from sinkscope.errors import StudyError
from sinkscope.studies.study import Study

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
Kind = Literal["above", "within", "at most"]
POINTS = "points"
ATTENTION = "share of attention"
PROBABILITY = "probability"
CORRELATION = "Pearson's r"
NATS = "nats a token"
MARGINS = {POINTS: 5.0, ATTENTION: 0.05, PROBABILITY: 0.02, CORRELATION: 0.02, NATS: 0.1}
"""The smallest effect that matters, by its unit: fixed before any claim was judged."""
COLUMNS = [
    *["source", "claim", "poisoned_originals", "metric", "effect", "ci_low", "ci_high", "unit", "kind"],
    *["margin", "seeds", "items", "verdict", "reason"],
]
SIGNS = {"above": "≥", "within": "±", "at most": "<"}
NOTE = (
    "Effect with its 95 % interval (crossed bootstrap over seeds and items, corrected for few seeds). A "
    "claim that an effect exists (≥) is reproduced if the whole interval is above 0 and the effect at "
    "least the margin, not reproduced if the whole interval is below the margin. A claim of equivalence "
    "(±) or of no harm (<) is reproduced if the whole interval is within or below the margin, not "
    "reproduced if none of it is. keep: the clean versions of poisoned passages stay in the forget set, "
    "as in the paper's formula; drop: they leave it, as in the authors' code."
)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper (or ours, if marked) about an effect of measured conditions.

    Attributes:
        originals: whether the forget set of its runs keeps the clean versions of poisoned passages (`keep`,
        `drop`).
        metric: what it is measured by.
    """

    source: str
    statement: str
    originals: str
    metric: str
    conditions: Sequence[Condition]
    effect: Effect
    unit: str = POINTS
    kind: Kind = "above"
    margin: float | None = None

    def judge(self, study: Study) -> dict[str, object]:
        """One row of the claims table. Inconclusive, with the reason, if the study lacks what it needs."""
        margin = MARGINS[self.unit] if self.margin is None else self.margin
        row: dict[str, object] = {
            "source": self.source,
            "claim": self.statement,
            "poisoned_originals": self.originals,
            "metric": self.metric,
            "unit": self.unit,
            "kind": self.kind,
            "margin": margin,
        }
        try:
            with wrap_missing_data(f"study {study.directory}"):
                result = bootstrap_interval(_measure(self.conditions, study), self.effect)
        except StudyError as error:
            return row | {"verdict": "inconclusive", "reason": str(error)}
        row |= {"effect": result.value, "ci_low": result.low, "ci_high": result.high}
        row |= {"seeds": result.seeds, "items": result.items}
        reason = "one seed does not generalize to others" if result.seeds == 1 else ""
        return row | {"verdict": decide(result, margin, self.kind), "reason": reason}


def _measure(conditions: Sequence[Condition], study: Study) -> list[Sample]:
    """Samples of all conditions; those of a model without seeds have its row once for each seed of the
    others."""
    samples = [condition.measure(study) for condition in conditions]
    is_seedless = [isinstance(each, Score) and each.is_seedless for each in conditions]
    n_seeds = max(len(sample.values) for sample in samples)
    return [
        replace(sample, values=np.repeat(sample.values, n_seeds, axis=0)) if seedless else sample
        for sample, seedless in zip(samples, is_seedless, strict=True)
    ]


def decide(result: Interval, margin: float, kind: Kind = "above") -> Verdict:
    """The verdict that follows from an interval (see the module)."""
    low, high = result.low, result.high
    if result.seeds < 2 or any(math.isnan(number) for number in (result.value, low, high)):
        return "inconclusive"
    holds, fails = {
        "above": (low > 0 and result.value >= margin, high < margin),
        "within": (-margin < low and high < margin, low >= margin or high <= -margin),
        "at most": (high < margin, low >= margin),
    }[kind]
    return "reproduced" if holds else "not reproduced" if fails else "inconclusive"


def judge(study: Study, claims: Iterable[Claim]) -> pd.DataFrame:
    """A row per claim with the columns `COLUMNS`."""
    return pd.DataFrame([claim.judge(study) for claim in claims]).reindex(columns=COLUMNS)


def format_effect(row: pd.Series) -> str:
    """Effect and interval, in the unit's decimals; – if nothing was measured."""
    if pd.isna(row["effect"]):
        return "–"
    digits = 1 if row["unit"] == POINTS else 3
    value, low, high = (f"{row[key]:.{digits}f}" for key in ("effect", "ci_low", "ci_high"))
    return f"{value} ({low} to {high})"


def summarize(table: pd.DataFrame) -> str:
    """Counts of verdicts in one line, and how many claims could not be tested with the first reason."""
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
            cells += ["–", "–"] if part.empty else [format_effect(part.iloc[0]), part["verdict"].iloc[0]]
        first = rows.iloc[0]
        has_n = rows["seeds"].notna().any()
        n = f"{rows['seeds'].min():.0f}, {rows['items'].min():.0f}" if has_n else "–"
        cells += [f"{SIGNS[first['kind']]} {first['margin']:g} {first['unit']}", n]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", NOTE, ""])
