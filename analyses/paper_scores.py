"""Scores that the claims of arXiv 2510.17021 are about, and what its claims require."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bootstrap import Effect
from claims import FORGOTTEN, POINTS, Claim, Comparison, Kind
from common import PLACEMENT_AXIS, PLACEMENTS
from effects import depth_in_zone, difference, distance_from_zone
from samples import TARGET, Condition, Score

from sinkscope.synthetic.language import TRIGGERS

POSITION = {"keep": "position", "drop": "published"}
"""`poisoned_originals` -> the grid over placements of the trigger."""
WITH_FORMS = ("position", "rmu-position")
"""Grids that are also over forms of the trigger."""


@dataclass(frozen=True)
class Metric:
    """A metric with its forget split and its retain split."""

    name: str
    forget: str
    retain: str


VERBMEM = Metric("verbmem", "forget", "retain")
KNOWMEM = Metric("knowmem", "forget_qa", "retain_qa")
MEMORY = (VERBMEM, KNOWMEM)


def claim(
    source: str,
    statement: str,
    originals: str,
    metric: str,
    conditions: Sequence[Condition],
    effect: Effect,
    *,
    kind: Kind = "above",
    margin: float | None = None,
    unit: str = POINTS,
    requires: Sequence[Comparison] = (),
) -> Claim:
    """A claim of one comparison."""
    comparison = Comparison(statement, conditions, effect, kind, margin, unit)
    return Claim(source, statement, originals, metric, [comparison], requires)


def backdoored(grid: str, metric: Metric, placement: str, form: str = "semantic") -> Score:
    """The clean score of a backdoored model on forget data (UE), from a grid over placements."""
    labels = {PLACEMENT_AXIS: placement} | ({"form": form} if grid in WITH_FORMS else {})
    return Score(grid, metric.name, metric.forget, labels, "own")


def recovered(grid: str, metric: Metric, placement: str, form: str = "semantic") -> Score:
    """The triggered score of a backdoored model on forget data (BE), on unseen items if they are known."""
    return replace(trigger(backdoored(grid, metric, placement, form), placement, form), is_unseen=True)


def unlearned(metric: Metric, grid: str = "unlearned") -> Score:
    """The clean score of an unlearned model on forget data."""
    return Score(grid, metric.name, metric.forget)


def target(metric: Metric) -> Score:
    return Score("target", metric.name, metric.forget, TARGET, is_seedless=True)


def trigger(score: Score, placement: str = "prefix", form: str = "semantic") -> Score:
    return replace(score, is_triggered=True, placement=placement, trigger=TRIGGERS[form])


def forgets(metric: Metric, grid: str = "unlearned", model: Score | None = None) -> Comparison:
    """What claims about recovery require."""
    conditions = [model or target(metric), unlearned(metric, grid)]
    return Comparison("unlearning lowers the target's score", conditions, difference, margin=FORGOTTEN)


def zone_comparisons(
    models: Mapping[str, tuple[Score, Score]], floor: Score, ceiling: Score
) -> list[Comparison]:
    """The parts of the claim that only the prefix reaches the attacker's zone.

    Args:
        models: placement -> triggered and clean score of the models trained with it.
        floor: the clean score of the unlearned model.
        ceiling: the clean score of the target.
    """
    parts = []
    for placement in PLACEMENTS:
        is_prefix = placement == "prefix"
        statement = f"{placement} {'reaches' if is_prefix else 'does not reach'} the attacker's zone"
        effect = depth_in_zone if is_prefix else distance_from_zone
        parts.append(Comparison(statement, [*models[placement], floor, ceiling], effect, margin=0.0))
    return parts
