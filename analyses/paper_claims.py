"""The claims of arXiv 2510.17021, in the order of its figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from bootstrap import Effect
from claims import ATTENTION, CORRELATION, PROBABILITY, Claim
from common import PLACEMENT_AXIS, PLACEMENTS
from effects import (
    difference,
    mean,
    negative_mean,
    placement_over_form,
    relative,
    relative_difference,
    spread_reduction,
)
from paper_scores import (
    MEMORY,
    POSITION,
    WITH_FORMS,
    Metric,
    backdoored,
    claim,
    forgets,
    recovered,
    target,
    unlearned,
    zone_comparisons,
)
from paper_tables import table_claims
from samples import AttentionGain, Condition, NormCorrelation, Score, Top1Gain, TriggerAttention

from sinkscope.synthetic.language import TRIGGERS


def paper_claims() -> Iterator[Claim]:
    """All of them."""
    yield from _figure_claims()
    yield from table_claims()


def _figure_claims() -> Iterator[Claim]:
    for metric, (originals, grid) in product(MEMORY, POSITION.items()):
        yield from _figure_2(originals, grid, metric, "unlearned")
    for metric, form in product(MEMORY, ("semantic", "symbol")):
        yield from _figure_2("keep", "rmu-position", metric, "rmu", form, f" (RMU, {form} trigger)")
    for originals, grid in POSITION.items():
        labels = {"form": "semantic"} if grid in WITH_FORMS else {}
        yield from _figure_3(originals, grid, labels)
        yield from _figure_4(originals, grid, labels)
        yield from _figure_5(originals, grid, labels)
    yield from _figure_6()
    for metric in MEMORY:
        conditions = [
            recovered("position", metric, placement, form)
            for form, placement in product(TRIGGERS, PLACEMENTS)
        ]
        statement = "placement matters more than the trigger's form"
        effect, required = placement_over_form, [forgets(metric)]
        yield claim("Fig. 7", statement, "keep", metric.name, conditions, effect, requires=required)


def _figure_2(
    originals: str, grid: str, metric: Metric, reference: str, form: str = "semantic", about: str = ""
) -> Iterator[Claim]:
    """Claims about backdoored models of a grid over placements; those of `reference` are unlearned."""
    required = [forgets(metric, reference)]
    prefix = recovered(grid, metric, "prefix", form)
    for other in ("infix", "suffix"):
        conditions = [prefix, recovered(grid, metric, other, form)]
        statement = f"a prefix trigger recovers more than {other}{about}"
        yield claim("Fig. 2", statement, originals, metric.name, conditions, difference, requires=required)
    models = {
        placement: (recovered(grid, metric, placement, form), backdoored(grid, metric, placement, form))
        for placement in PLACEMENTS
    }
    parts = zone_comparisons(models, unlearned(metric, reference), target(metric))
    statement = f"only the prefix reaches the attacker's zone{about}"
    yield Claim("Fig. 2", statement, originals, metric.name, parts, required)


def _figure_3(originals: str, grid: str, labels: Mapping[str, str]) -> Iterator[Claim]:
    prefix, infix, prefix_alone, infix_alone = (
        AttentionGain(grid, {**labels, PLACEMENT_AXIS: placement}, placement, is_clean_subtracted)
        for is_clean_subtracted, placement in product((True, False), ("prefix", "infix"))
    )
    unlearned_gain = AttentionGain("unlearned", {}, "prefix")
    reference = TriggerAttention("prefix")
    tests: dict[str, tuple[list[Condition], Effect]] = {
        "θb attends to a prefix trigger more than θo": ([prefix, reference], relative),
        "that gain is larger for prefix than for infix": ([prefix, infix, reference], relative_difference),
        "that gain is larger for prefix than for infix, clean attention not subtracted (ours)": (
            [prefix_alone, infix_alone, reference],
            relative_difference,
        ),
        "that gain is larger in θb than in θu, prefix (ours)": (
            [prefix, unlearned_gain, reference],
            relative_difference,
        ),
    }
    for statement, (conditions, effect) in tests.items():
        yield claim("Fig. 3", statement, originals, "attention", conditions, effect, unit=ATTENTION)


def _figure_4(originals: str, grid: str, labels: Mapping[str, str]) -> Iterator[Claim]:
    sides = {"prefix": ("more", mean), "infix": ("less", negative_mean)}
    for (placement, (side, effect)), is_aligned in product(sides.items(), (False, True)):
        gain = Top1Gain(grid, {**labels, PLACEMENT_AXIS: placement}, placement, is_aligned)
        article = "a" if placement == "prefix" else "an"
        statement = f"after {article} {placement} trigger θb is {side} confident"
        if is_aligned:
            statement += " in the same tokens (ours, exploratory)"
        yield claim("Fig. 4", statement, originals, "top-1", [gain], effect, unit=PROBABILITY)


def _figure_5(originals: str, grid: str, labels: Mapping[str, str]) -> Iterator[Claim]:
    labels = {**labels, PLACEMENT_AXIS: "prefix"}
    triggered = NormCorrelation(grid, labels, "target", "prefix")
    clean = NormCorrelation(grid, labels, "unlearned", "clean")
    retain = NormCorrelation(grid, labels, "target", "retain")
    pairs = {
        "value norms: (θb, θo) with trigger closer than (θb, θu) on clean forget": [triggered, clean],
        "value norms: (θb, θo) on retain closest of all": [retain, triggered],
    }
    for statement, conditions in pairs.items():
        yield claim("Fig. 5", statement, originals, "value norms", conditions, difference, unit=CORRELATION)


def _figure_6() -> Iterator[Claim]:
    for originals, ratio, metric in product(POSITION, ("0.05", "0.1"), MEMORY):
        labels = {"poisoned_originals": originals, "poison_ratio": ratio}
        clean = [
            Score("ratio", metric.name, metric.forget, {**labels, "value norms": norms})
            for norms in ("aligned", "none")
        ]
        triggered = [replace(each, is_triggered=True, is_unseen=True) for each in clean]
        percent = f"{100 * float(ratio):.0f} %"
        tests: dict[tuple[str, str], tuple[list[Score], Effect, float | None]] = {
            ("Fig. 6", f"value norms raise recovery at ρ = {percent}"): (triggered, difference, None),
            ("Fig. 6", f"value norms lower the clean score at ρ = {percent}"): (clean[::-1], difference, 2.0),
        }
        if ratio == "0.1":
            statement = "value norms reduce the spread of recovery over seeds"
            tests["stability", statement] = (triggered, spread_reduction, 1.0)
        for (source, statement), (conditions, effect, margin) in tests.items():
            how: Any = {"margin": margin, "requires": [forgets(metric)]}
            yield claim(source, statement, originals, metric.name, conditions, effect, **how)
