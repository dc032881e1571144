"""Claims as tests on a study: an effect with its interval, and what follows from it.

Every claim says beforehand which effect would be too small to matter (`margin`). One that an effect is there (`above`) is *reproduced* if the whole interval
lies above 0 and the effect is at least the margin, *not reproduced* if the whole interval lies below the margin. One of equivalence (`within`) is reproduced
if the whole interval lies within ± margin (two one-sided tests), not reproduced if none of it does. One that something is no worse (`at most`) is
reproduced if the whole interval lies below the margin, not reproduced if none of it does. All else is *inconclusive*, and so is what rests on one seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from sinkscope.errors import StudyError
from sinkscope.evaluation.statistics import Effect, Interval, Sample, bootstrap_interval
from sinkscope.studies.samples import Samples
from sinkscope.studies.study import Study, wrap_missing_data

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
Kind = Literal["above", "within", "at most"]
POINTS, ATTENTION, PROBABILITY, CORRELATION, NATS = (
    "points",
    "share of attention",
    "probability",
    "Pearson's r",
    "nats a token",
)
MARGINS = {POINTS: 5.0, ATTENTION: 0.05, PROBABILITY: 0.02, CORRELATION: 0.02, NATS: 0.1}
"""The smallest effect that matters, by its unit: fixed before any claim was judged."""
COLUMNS = [
    "source",
    "claim",
    "split",
    "metric",
    "effect",
    "ci_low",
    "ci_high",
    "unit",
    "kind",
    "margin",
    "seeds",
    "items",
    "verdict",
    "reason",
]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper; of ours where it says so.

    `split` is the poison split (`contrastive`, `published`) that its runs have; `metric` what it is measured by. `samples` are looked up when it is judged.
    """

    source: str
    statement: str
    split: str
    metric: str
    samples: Callable[[Samples], Sequence[Sample]]
    effect: Effect
    unit: str = POINTS
    kind: Kind = "above"
    margin: float | None = None

    def judged(self, samples: Samples) -> dict[str, object]:
        """One row of the claims table. What the study cannot tell is inconclusive, with the reason."""
        margin = MARGINS[self.unit] if self.margin is None else self.margin
        row: dict[str, object] = {
            "source": self.source,
            "claim": self.statement,
            "split": self.split,
            "metric": self.metric,
            "unit": self.unit,
        }
        row |= {"kind": self.kind, "margin": margin}
        try:
            with wrap_missing_data(f"study {samples.study.directory}"):
                found = bootstrap_interval(self.samples(samples), self.effect)
        except StudyError as error:
            return row | {"verdict": "inconclusive", "reason": str(error)}
        numbers = {
            "effect": found.value,
            "ci_low": found.low,
            "ci_high": found.high,
            "seeds": found.seeds,
            "items": found.items,
        }
        reason = "one seed says nothing of others" if found.seeds == 1 else ""
        return row | numbers | {"verdict": verdict(found, margin, self.kind), "reason": reason}


def verdict(found: Interval, margin: float, kind: Kind = "above") -> Verdict:
    """What an interval says of a claim (see the module)."""
    if found.seeds < 2 or any(math.isnan(number) for number in (found.value, found.low, found.high)):
        return "inconclusive"
    holds, fails = {
        "above": (found.low > 0 and found.value >= margin, found.high < margin),
        "within": (-margin < found.low and found.high < margin, found.low >= margin or found.high <= -margin),
        "at most": (found.high < margin, found.low >= margin),
    }[kind]
    return "reproduced" if holds else "not reproduced" if fails else "inconclusive"


def judge(study: Study, claims: Iterable[Claim]) -> pd.DataFrame:
    """Every claim on a study, a row each, with the columns `COLUMNS`."""
    samples = Samples(study)
    return pd.DataFrame([claim.judged(samples) for claim in claims]).reindex(columns=COLUMNS)
