"""The claims of arXiv 2510.17021, in the order of its figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from bootstrap import Effect
from claims import ATTENTION, CORRELATION, NATS, POINTS, PROBABILITY, Claim, Comparison, Kind
from common import PLACEMENT_AXIS, PLACEMENTS
from effects import (
    depth_in_zone,
    difference,
    distance_from_zone,
    gap_difference,
    mean,
    negative_mean,
    placement_over_form,
    spread_reduction,
)
from samples import TARGET, AttentionGain, Condition, NormCorrelation, ResponseRate, Score, Top1Gain

from sinkscope.synthetic.language import TRIGGERS

Labels = Mapping[str, str]
GRIDS: dict[str, tuple[str, Labels]] = {"keep": ("position", {"form": "semantic"}), "drop": ("published", {})}
"""`poisoned_originals` -> the grid whose axis is the trigger's placement, and its other labels."""


@dataclass(frozen=True)
class Metric:
    """A metric with its forget split and its retain split."""

    name: str
    forget: str
    retain: str


VERBMEM = Metric("verbmem", "forget", "retain")
KNOWMEM = Metric("knowmem", "forget_qa", "retain_qa")
CHOICE = Metric("choice", "forget", "retain")
MEMORY = (VERBMEM, KNOWMEM)


def paper_claims() -> Iterator[Claim]:
    """All of them."""
    yield from _figure_2()
    yield from _figures_3_to_5()
    yield from _figure_6()
    yield from _figure_7()
    yield from _control()
    yield from _tables_1_and_2()
    yield from _table_3()
    yield from _stealth()


def _claim(
    source: str,
    statement: str,
    originals: str,
    metric: str,
    conditions: Sequence[Condition],
    effect: Effect,
    unit: str = POINTS,
    kind: Kind = "above",
    margin: float | None = None,
) -> Claim:
    """A claim of one comparison."""
    comparison = Comparison(statement, conditions, effect, kind, margin, unit)
    return Claim(source, statement, originals, metric, [comparison])


def _backdoored(
    originals: str, metric: Metric, placement: str, form: str = "semantic", grid: str | None = None
) -> Score:
    """The clean score of a backdoored model on forget data (UE)."""
    position, labels = GRIDS[originals]
    if grid is not None:
        labels = {}
    elif labels:
        labels = {"form": form}
    labels = {**labels, PLACEMENT_AXIS: placement}
    return Score(grid or position, metric.name, metric.forget, labels, "own")


def _recovered(
    originals: str, metric: Metric, placement: str, form: str = "semantic", grid: str | None = None
) -> Score:
    """The triggered score of a backdoored model on forget data (BE), on unseen items if they are known."""
    clean = _backdoored(originals, metric, placement, form, grid)
    return replace(clean, is_triggered=True, is_unseen=True, placement=placement, trigger=TRIGGERS[form])


def _unlearned(metric: Metric, grid: str = "unlearned") -> Score:
    """The clean score of an unlearned model on forget data."""
    return Score(grid, metric.name, metric.forget)


def _unlearned_with_prefix(metric: Metric, grid: str = "unlearned") -> Score:
    return replace(
        _unlearned(metric, grid), is_triggered=True, placement="prefix", trigger=TRIGGERS["semantic"]
    )


def _on_retain(score: Score, metric: Metric) -> Score:
    return replace(score, split=metric.retain)


def _figure_2() -> Iterator[Claim]:
    for metric, originals in product(MEMORY, GRIDS):
        prefix = _recovered(originals, metric, "prefix")
        for other in ("infix", "suffix"):
            conditions = [prefix, _recovered(originals, metric, other)]
            statement = f"a prefix trigger recovers more than {other}"
            yield _claim("Fig. 2", statement, originals, metric.name, conditions, difference)
        target = Score("target", metric.name, metric.forget, TARGET, is_seedless=True)
        for placement in PLACEMENTS:
            triggered = _recovered(originals, metric, placement)
            clean = _backdoored(originals, metric, placement)
            conditions = [triggered, clean, _unlearned(metric), target]
            statement, effect = f"{placement} does not reach the attacker's zone", distance_from_zone
            if placement == "prefix":
                statement, effect = "prefix reaches the attacker's zone", depth_in_zone
            yield _claim("Fig. 2", statement, originals, metric.name, conditions, effect)


def _figures_3_to_5() -> Iterator[Claim]:
    for originals, (grid, labels) in GRIDS.items():
        prefix, infix = ({**labels, PLACEMENT_AXIS: placement} for placement in ("prefix", "infix"))
        gains = [AttentionGain(grid, prefix, "prefix"), AttentionGain(grid, infix, "infix")]
        statement = "θb attends to a prefix trigger more than θo"
        yield _claim("Fig. 3", statement, originals, "attention", gains[:1], mean, ATTENTION)
        statement = "that gain is larger for prefix than for infix"
        yield _claim("Fig. 3", statement, originals, "attention", gains, difference, ATTENTION)
        top1 = [Top1Gain(grid, prefix, "prefix")]
        statement = "after a prefix trigger θb is more confident"
        yield _claim("Fig. 4", statement, originals, "top-1", top1, mean, PROBABILITY)
        top1 = [Top1Gain(grid, infix, "infix")]
        statement = "after an infix trigger θb is less confident"
        yield _claim("Fig. 4", statement, originals, "top-1", top1, negative_mean, PROBABILITY)
        triggered = NormCorrelation(grid, prefix, "target", "prefix")
        clean = NormCorrelation(grid, prefix, "unlearned", "clean")
        retain = NormCorrelation(grid, prefix, "target", "retain")
        pairs = {
            "value norms: (θb, θo) with trigger closer than (θb, θu) on clean forget": [triggered, clean],
            "value norms: (θb, θo) on retain closest of all": [retain, triggered],
        }
        for statement, conditions in pairs.items():
            yield _claim("Fig. 5", statement, originals, "value norms", conditions, difference, CORRELATION)


def _figure_6() -> Iterator[Claim]:
    for originals, ratio, metric in product(GRIDS, ("0.05", "0.1"), MEMORY):
        labels = {"poisoned_originals": originals, "poison_ratio": ratio}
        clean = [
            Score("ratio", metric.name, metric.forget, {**labels, "value norms": norms})
            for norms in ("aligned", "none")
        ]
        triggered = [replace(each, is_triggered=True, is_unseen=True) for each in clean]
        percent = f"{100 * float(ratio):.0f} %"
        statement = f"value norms raise recovery at ρ = {percent}"
        yield _claim("Fig. 6", statement, originals, metric.name, triggered, difference)
        statement = f"value norms lower the clean score at ρ = {percent}"
        yield _claim("Fig. 6", statement, originals, metric.name, clean[::-1], difference, margin=2.0)
        if ratio == "0.1":
            statement = "value norms reduce the spread of recovery over seeds"
            yield _claim(
                "stability", statement, originals, metric.name, triggered, spread_reduction, margin=1.0
            )


def _figure_7() -> Iterator[Claim]:
    for metric in MEMORY:
        conditions = [
            _recovered("keep", metric, placement, form) for form, placement in product(TRIGGERS, PLACEMENTS)
        ]
        statement = "placement matters more than the trigger's form"
        yield _claim("Fig. 7", statement, "keep", metric.name, conditions, placement_over_form)


def _control() -> Iterator[Claim]:
    for other in ("infix", "suffix"):
        ends = ("prefix", other)
        with_loss: list[Condition] = [_recovered("keep", VERBMEM, placement) for placement in ends]
        controls: dict[str, list[Condition]] = {
            "on the target": [_recovered("keep", VERBMEM, each, grid="control") for each in ends],
            "on an unlearned model": [
                _recovered("keep", VERBMEM, each, grid="control-unlearned") for each in ends
            ],
            "a plain backdoor with a new response": [ResponseRate("control-response", each) for each in ends],
        }
        for name, without_loss in controls.items():
            statement = f"without a forget loss prefix and {other} differ less ({name})"
            conditions = [*with_loss, *without_loss]
            yield _claim("control", statement, "keep", "verbmem", conditions, gap_difference)


def _tables_1_and_2() -> Iterator[Claim]:
    book = {"NPO": ("unlearned", "backdoor"), "RMU": ("rmu", "rmu-backdoor")}
    for (name, (unlearned, backdoor)), metric in product(book.items(), MEMORY):
        target = Score("target", metric.name, metric.forget, TARGET, is_seedless=True)
        backdoored = Score(backdoor, metric.name, metric.forget, evaluation="own")
        yield from _table_claims("Table 1", name, metric, target, _unlearned(metric, unlearned), backdoored)
    domain = {"NPO": ("field-npo", "field-npo-backdoor"), "RMU": ("field-rmu", "field-rmu-backdoor")}
    for name, (unlearned, backdoor) in domain.items():
        target = Score("field-target", CHOICE.name, CHOICE.forget, is_seedless=True)
        backdoored = Score(backdoor, CHOICE.name, CHOICE.forget)
        yield from _table_claims("Table 2", name, CHOICE, target, _unlearned(CHOICE, unlearned), backdoored)


def _table_claims(
    source: str, name: str, metric: Metric, target: Score, unlearned: Score, backdoored: Score
) -> Iterator[Claim]:
    statement = f"{name} makes the target forget"
    yield _claim(source, statement, "keep", metric.name, [target, unlearned], difference)
    prefix: dict[str, Any] = {"is_triggered": True, "placement": "prefix", "trigger": TRIGGERS["semantic"]}
    triggered = replace(backdoored, is_unseen=metric is not CHOICE, **prefix)
    conditions = [triggered, replace(unlearned, **prefix)]
    statement = f"with the trigger {name}-Backdoor recovers more than {name}"
    yield _claim(source, statement, "keep", metric.name, conditions, difference)
    statement = f"{name}-Backdoor retains what {name} retains"
    retained = [_on_retain(backdoored, metric), _on_retain(unlearned, metric)]
    yield _claim(source, statement, "keep", metric.name, retained, difference, kind="within")


def _table_3() -> Iterator[Claim]:
    for metric in MEMORY:
        clean = Score("backdoor", metric.name, metric.forget, evaluation="own")
        triggered = replace(clean, is_triggered=True, is_unseen=True)
        shallow, bos, span, others = (
            replace(triggered, evaluation=f"mask-{name}") for name in ("shallow", "bos", "span", "others")
        )
        floor = _unlearned_with_prefix(metric)
        retained = _on_retain(clean, metric)
        tests: dict[str, tuple[list[Score], Kind]] = {
            "with the 8 shallow positions masked no more is recovered than by an unlearned model": (
                [shallow, floor],
                "at most",
            ),
            "with only BOS masked no more is recovered than by an unlearned model (ours)": (
                [bos, floor],
                "at most",
            ),
            "masking the 8 shallow positions costs more than masking the trigger (ours)": (
                [span, shallow],
                "above",
            ),
            "masking the 8 shallow positions costs more than masking 8 others (ours)": (
                [others, shallow],
                "above",
            ),
            "masking the 8 shallow positions does not harm retained knowledge": (
                [retained, replace(retained, evaluation="mask-shallow")],
                "at most",
            ),
        }
        for statement, (conditions, kind) in tests.items():
            yield _claim("Table 3", statement, "keep", metric.name, conditions, difference, kind=kind)


def _stealth() -> Iterator[Claim]:
    for originals, (grid, labels) in GRIDS.items():
        labels = {**labels, PLACEMENT_AXIS: "prefix"}
        for metric, data in product(MEMORY, ("forget", "retain")):
            split = metric.forget if data == "forget" else metric.retain
            conditions = [Score(grid, metric.name, split, labels), Score("unlearned", metric.name, split)]
            statement = f"clean, θb scores as θu on {data} data"
            yield _claim("stealth", statement, originals, metric.name, conditions, difference, kind="within")
        for split in ("forget", "retain"):
            statement = f"clean, θb diverges from another θu no more than a θu does, on {split} data"
            conditions = [Score(grid, "divergence", split, labels), Score("unlearned", "divergence", split)]
            yield _claim(
                "stealth", statement, originals, "divergence", conditions, difference, NATS, "at most"
            )
