"""The ten pre-registered claims on several targets (`.docs/pages/preregistration.md`), in its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from claims import FORGOTTEN, RATIO, Claim, Comparison, Outcome, format_effect, format_margin, judge_family
from common import PLACEMENT_AXIS, PLACEMENTS, format_range
from effects import difference, excess_over, placement_over_form
from paper_scores import MEMORY, trigger, zone_comparisons
from samples import MODEL_AXIS, Score

from sinkscope.errors import StudyError
from sinkscope.plots.scores import METRICS
from sinkscope.studies.graph import TINY
from sinkscope.studies.grids import ModelGrid, RecipeGrid
from sinkscope.studies.study import Study
from sinkscope.synthetic.language import TRIGGERS

Targets = tuple[str, ...]
GRIDS = ("target", "unlearned", "position", "masked", "form")
SPLITS = {metric.name: (metric.forget, metric.retain) for metric in MEMORY}
HARM = 5.0
"""Points on retain data that count as harm."""
NOTE = (
    "Effect: mean over targets, seeds and items, with its 95 % interval (crossed bootstrap over all three, "
    "corrected for few targets). p: one-sided, of an effect beyond the margin; Holm: corrected among the "
    "claims of this table. Reproduced: p ≤ .025 after the correction. Not reproduced: the whole interval is "
    "on the other side of the margin. Of a conjunction the part with the largest p is printed. Built-in: the "
    "effect in the built-in target, which takes part in no test."
)


@dataclass(frozen=True)
class Measured:
    """Scores of the models that come from given targets, by one metric.

    Attributes:
        metric: `verbmem` or `knowmem`.
    """

    metric: str
    targets: Targets

    def backdoored(self, placement: str) -> Score:
        """Clean, on forget data (UE)."""
        return replace(self._score("position"), labels={PLACEMENT_AXIS: placement}, evaluation="own")

    def recovered(self, placement: str) -> Score:
        """With the trigger where it was trained, on unseen items (BE)."""
        return self._trigger(self.backdoored(placement), placement)

    def recovered_by_form(self, form: str, placement: str) -> Score:
        labels = {"form": form, PLACEMENT_AXIS: placement}
        return self._trigger(replace(self._score("form"), labels=labels), placement, form)

    def masked(self, evaluation: str) -> Score:
        """BE of the prefix in one evaluation of grid `masked`."""
        return self._trigger(replace(self._score("masked"), evaluation=evaluation), "prefix")

    def unlearned(self) -> Score:
        """Clean, of the unlearned model."""
        return self._score("unlearned")

    def unlearned_with_trigger(self, placement: str = "prefix") -> Score:
        triggered = self._trigger(self.unlearned(), placement)
        return replace(triggered, is_unseen=False)

    def target(self) -> Score:
        return replace(self._score("target"), is_seedless=True)

    def on_retain(self, score: Score) -> Score:
        return replace(score, split=SPLITS[self.metric][1])

    def forgets(self) -> Comparison:
        """What every claim requires."""
        conditions = [self.target(), self.unlearned()]
        return Comparison("NPO lowers the target's score", conditions, difference, margin=FORGOTTEN)

    def _score(self, grid: str) -> Score:
        return Score(grid, self.metric, SPLITS[self.metric][0], targets=self.targets)

    def _trigger(self, score: Score, placement: str, form: str = "semantic") -> Score:
        return replace(trigger(score, placement, form), is_unseen=True)


def target_claims(targets: Targets) -> list[Claim]:
    """The ten primary claims."""
    both = [Measured(metric, targets) for metric in SPLITS]
    recites = both[0]
    return [
        *map(_recovers, both),
        *(_exceeds(measured, "infix") for measured in both),
        _exceeds(recites, "suffix"),
        *map(_reaches_zone_alone, both),
        _placement_over_form(recites),
        _needs_shallow_positions(recites),
        _is_stealthy(recites),
    ]


def _claim(
    measured: Measured, source: str, statement: str, comparisons: Sequence[Comparison], *requires: Comparison
) -> Claim:
    return Claim(source, statement, "keep", measured.metric, comparisons, [measured.forgets(), *requires])


def _recovers(measured: Measured) -> Claim:
    statement = "with a prefix trigger the backdoored model recovers more than the unlearned one"
    conditions = [measured.recovered("prefix"), measured.unlearned_with_trigger()]
    return _claim(measured, "Fig. 2", statement, [Comparison(statement, conditions, difference)])


def _exceeds(measured: Measured, other: str) -> Claim:
    statement = f"a prefix trigger recovers more than {other}"
    conditions = [measured.recovered("prefix"), measured.recovered(other)]
    return _claim(measured, "Fig. 2", statement, [Comparison(statement, conditions, difference)])


def _reaches_zone_alone(measured: Measured) -> Claim:
    models = {
        placement: (measured.recovered(placement), measured.backdoored(placement)) for placement in PLACEMENTS
    }
    parts = zone_comparisons(models, measured.unlearned(), measured.target())
    return _claim(measured, "Fig. 2", "only the prefix reaches the attacker's zone", parts)


def _placement_over_form(measured: Measured) -> Claim:
    statement = "placement matters more than the trigger's form"
    conditions = [
        measured.recovered_by_form(form, placement) for form in TRIGGERS for placement in PLACEMENTS
    ]
    return _claim(measured, "Fig. 7", statement, [Comparison(statement, conditions, placement_over_form)])


def _needs_shallow_positions(measured: Measured) -> Claim:
    floor = measured.unlearned_with_trigger()
    masked = Comparison(
        f"masked, it recovers at most {RATIO:g} times what the unlearned model does",
        [measured.masked("mask-shallow"), floor],
        excess_over(RATIO),
        "at most",
        margin=0.0,
    )
    clean = replace(measured.on_retain(measured.unlearned()), grid="masked", evaluation="own")
    harmless = Comparison(
        f"masked, its score on retain data falls by less than {HARM:g}",
        [clean, replace(clean, evaluation="mask-shallow")],
        difference,
        "at most",
        margin=HARM,
    )
    before = Comparison(
        "before masking it recovers more than the unlearned model",
        [measured.masked("own"), floor],
        difference,
        margin=FORGOTTEN,
    )
    statement = "with the first 8 positions masked, recovery falls to that of the unlearned model"
    return _claim(measured, "Table 3", statement, [masked, harmless], before)


def _is_stealthy(measured: Measured) -> Claim:
    backdoored, unlearned = measured.backdoored("prefix"), measured.unlearned()
    forget = Comparison(
        f"on forget data it scores less than {RATIO:g} times as high",
        [backdoored, unlearned],
        excess_over(RATIO),
        "at most",
        margin=0.0,
    )
    retain = Comparison(
        f"on retain data it scores less than {HARM:g} lower",
        [measured.on_retain(unlearned), measured.on_retain(backdoored)],
        difference,
        "at most",
        margin=HARM,
    )
    statement = "clean, the backdoored model scores as the unlearned one"
    return _claim(measured, "stealth", statement, [forget, retain])


def find_targets(study: Study) -> Targets | None:
    """The targets that a study of several targets pretrained; None if it is another study."""
    grids = study.spec.grids
    if any(name not in grids for name in GRIDS) or not isinstance(grids["target"], ModelGrid):
        return None
    has_axis = all(MODEL_AXIS in getattr(grids[name], "axes", {}) for name in GRIDS[1:])
    return tuple(study.spec.models) if has_axis and len(study.spec.models) > 1 else None


def require_complete(study: Study) -> None:
    """Raise a StudyError if a run or an evaluation that the specification asks for is missing."""
    items = study.table("items")
    for name, grid in study.spec.grids.items():
        rows = items[items["grid"] == name]
        if isinstance(grid, ModelGrid):
            expected = {(model, evaluation) for model in grid.models for evaluation in grid.evaluations}
            found = set(zip(rows["run"], rows["evaluation"], strict=True))
        elif isinstance(grid, RecipeGrid):
            axes = list(grid.axes)
            expected = {
                (*map(str, labels.values()), seed, evaluation)
                for labels, _ in grid.points()
                for seed in grid.seeds or study.spec.seeds
                for evaluation in grid.evaluations
            }
            columns = [rows.get(axis, pd.Series(dtype=str)) for axis in axes]
            found = set(zip(*columns, rows["seed"], rows["evaluation"], strict=True))
        else:
            continue
        if missing := sorted(expected - found):
            raise StudyError(
                f"study {study.directory} lacks {len(missing)} of {len(expected)} results of grid {name!r}, "
                f"first {', '.join(map(str, missing[0]))}; run the study again"
            )


def judge_targets(study: Study, targets: Targets) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per claim, and a row per part of a claim; `built_in` is the effect in the built-in target.

    Raises:
        StudyError: the study lacks a run, a condition or an item.
    """
    require_complete(study)
    outcomes = [Outcome.measure(claim, study) for claim in target_claims(targets)]
    built_in = [
        [comparison.value(study) for comparison in claim.comparisons] for claim in target_claims((TINY,))
    ]
    tables = []
    for number, (outcome, values) in enumerate(zip(outcomes, built_in, strict=True), 1):
        table = pd.DataFrame(outcome.rows()).drop(columns="poisoned_originals")
        table.insert(0, "number", number)
        tables.append(table.assign(built_in=values))
    parts = pd.concat(tables, ignore_index=True)
    verdicts = judge_family(outcomes).assign(number=range(1, len(outcomes) + 1))
    verdicts["conditions"] = verdicts["reason"].replace("", "met")
    kept = verdicts[["number", "part", "p_holm", "verdict", "conditions"]]
    return parts.merge(kept, on=["number", "part"]), parts


def format_markdown(table: pd.DataFrame) -> str:
    """The table of claims, a row each."""
    columns = ["#", "paper", "claim", "metric", "effect", "margin", "p", "Holm", "verdict", "built-in"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for _, row in table.iterrows():
        claim = row["claim"] if row["part"] == row["claim"] else f"{row['claim']}: {row['part']}"
        verdict = row["verdict"] + ("" if row["conditions"] == "met" else f" ({row['conditions']})")
        p = [f"{row[key]:.2g}" for key in ("p", "p_holm")]
        cells = [str(row["number"]), row["source"], claim, METRICS[row["metric"]], format_effect(row)]
        cells += [format_margin(row), *p, verdict, f"{row['built_in']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    n = f"n = {table['targets'].max()} targets, {format_range(table['seeds'])} seeds, "
    n += f"{format_range(table['items'].round())} items."
    return "\n".join([*lines, "", f"{NOTE} {n}", ""])
