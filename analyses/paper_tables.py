"""The claims of arXiv 2510.17021 about its tables, the control without a forget loss, and stealth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from claims import FORGOTTEN, NATS, RATIO, Claim, Comparison, Kind
from common import PLACEMENT_AXIS, PLACEMENTS
from effects import difference, excess_over, gap_difference
from paper_scores import (
    MEMORY,
    POSITION,
    VERBMEM,
    WITH_FORMS,
    Metric,
    backdoored,
    claim,
    forgets,
    recovered,
    target,
    trigger,
    unlearned,
)
from samples import Condition, ResponseRate, Score

CHOICE = Metric("choice", "forget", "retain")


def table_claims() -> Iterator[Claim]:
    """All of them."""
    yield from _control()
    yield from _tables_1_and_2()
    yield from _other_rmu_backdoors()
    yield from _table_3()
    yield from _stealth()


def _control() -> Iterator[Claim]:
    for other in ("infix", "suffix"):
        ends = ("prefix", other)
        with_loss: list[Condition] = [recovered("position", VERBMEM, placement) for placement in ends]
        grids = {"on the target": "control", "on an unlearned model": "control-unlearned"}
        controls: dict[str, tuple[list[Condition], list[Comparison]]] = {
            name: ([recovered(grid, VERBMEM, each) for each in ends], [_leaves_room(grid)])
            for name, grid in grids.items()
        }
        rates: list[Condition] = [ResponseRate("control-response", each) for each in ends]
        controls["a plain backdoor with a new response"] = (rates, [])
        for name, (without_loss, required) in controls.items():
            statement = f"without a forget loss prefix and {other} differ less ({name})"
            conditions = [*with_loss, *without_loss]
            required = [forgets(VERBMEM), *required]
            yield claim(
                "control", statement, "keep", "verbmem", conditions, gap_difference, requires=required
            )


def _leaves_room(grid: str) -> Comparison:
    """A control that knows everything without the trigger cannot differ by its placement."""
    conditions = [target(VERBMEM), backdoored(grid, VERBMEM, "prefix")]
    return Comparison(
        "the control's clean score is below the target's", conditions, difference, margin=FORGOTTEN
    )


def _tables_1_and_2() -> Iterator[Claim]:
    book = {"NPO": ("unlearned", "backdoor"), "RMU": ("rmu", "rmu-backdoor")}
    for (name, (reference, grid)), metric in product(book.items(), MEMORY):
        score = Score(grid, metric.name, metric.forget, evaluation="own")
        yield from _objective_claims(
            "Table 1", name, metric, target(metric), unlearned(metric, reference), score
        )
    domain = {"NPO": ("field-npo", "field-npo-backdoor"), "RMU": ("field-rmu", "field-rmu-backdoor")}
    for name, (reference, grid) in domain.items():
        model = Score("field-target", CHOICE.name, CHOICE.forget, is_seedless=True)
        models = (model, unlearned(CHOICE, reference), Score(grid, CHOICE.name, CHOICE.forget))
        yield from _objective_claims("Table 2", name, CHOICE, *models)


def _objective_claims(
    source: str, name: str, metric: Metric, model: Score, reference: Score, backdoor: Score
) -> Iterator[Claim]:
    statement = f"{name} makes the target forget"
    yield claim(source, statement, "keep", metric.name, [model, reference], difference)
    triggered = replace(trigger(backdoor), is_unseen=metric is not CHOICE)
    retained = [replace(each, split=metric.retain) for each in (backdoor, reference)]
    tests: dict[str, tuple[list[Score], Kind]] = {
        f"with the trigger {name}-Backdoor recovers more than {name}": (
            [triggered, trigger(reference)],
            "above",
        ),
        f"{name}-Backdoor retains what {name} retains": (retained, "within"),
    }
    for statement, (conditions, kind) in tests.items():
        how: Any = {"kind": kind, "requires": [forgets(metric, reference.grid, model)]}
        yield claim(source, statement, "keep", metric.name, conditions, difference, **how)


def _other_rmu_backdoors() -> Iterator[Claim]:
    """Recovery at the other placements and with the symbol trigger."""
    for metric, form, placement in product(MEMORY, ("semantic", "symbol"), PLACEMENTS):
        if (form, placement) == ("semantic", "prefix"):
            continue  # is in table 1
        conditions = [
            recovered("rmu-position", metric, placement, form),
            trigger(unlearned(metric, "rmu"), placement, form),
        ]
        statement = f"with a {form} trigger as {placement} RMU-Backdoor recovers more than RMU (ours)"
        required = [forgets(metric, "rmu")]
        yield claim("Table 1", statement, "keep", metric.name, conditions, difference, requires=required)


def _table_3() -> Iterator[Claim]:
    for metric in MEMORY:
        clean = Score("backdoor", metric.name, metric.forget, evaluation="own")
        triggered = replace(trigger(clean), is_unseen=True)
        shallow, bos, span, others = (
            replace(triggered, evaluation=f"mask-{name}") for name in ("shallow", "bos", "span", "others")
        )
        floor = trigger(unlearned(metric))
        before = Comparison(
            "before masking it recovers more than an unlearned model",
            [triggered, floor],
            difference,
            margin=FORGOTTEN,
        )
        like_unlearned: Any = {"effect": excess_over(RATIO), "kind": "at most", "margin": 0.0}
        costs: Any = {"effect": difference}
        times = f"at most {RATIO:g} times what an unlearned model does"
        tests: dict[str, tuple[list[Score], Any]] = {
            f"with the 8 shallow positions masked it recovers {times}": ([shallow, floor], like_unlearned),
            f"with only BOS masked it recovers {times} (ours)": ([bos, floor], like_unlearned),
            "masking the 8 shallow positions costs more than masking the trigger (ours)": (
                [span, shallow],
                costs,
            ),
            "masking the 8 shallow positions costs more than masking 8 others (ours)": (
                [others, shallow],
                costs,
            ),
        }
        required = [forgets(metric), before]
        for statement, (conditions, how) in tests.items():
            yield claim("Table 3", statement, "keep", metric.name, conditions, requires=required, **how)
        retained = replace(clean, split=metric.retain)
        statement = "masking the 8 shallow positions does not harm retained knowledge"
        conditions = [retained, replace(retained, evaluation="mask-shallow")]
        yield claim("Table 3", statement, "keep", metric.name, conditions, difference, kind="at most")


def _stealth() -> Iterator[Claim]:
    """Of `keep`, scores on retain data are those of table 1."""
    for originals, grid in POSITION.items():
        for metric in MEMORY:
            # with `drop`, poisoned passages were never in the forget set
            scores = [
                replace(backdoored(grid, metric, "prefix"), is_unseen=originals == "drop"),
                unlearned(metric),
            ]
            how: Any = {"kind": "at most", "margin": 0.0, "requires": [forgets(metric)]}
            statement = f"clean, θb scores less than {RATIO:g} times as high as θu on forget data"
            yield claim("stealth", statement, originals, metric.name, scores, excess_over(RATIO), **how)
            if originals == "drop":
                retained = [replace(each, split=metric.retain, is_unseen=False) for each in scores]
                how = {"kind": "within", "requires": [forgets(metric)]}
                statement = "clean, θb scores as θu on retain data"
                yield claim("stealth", statement, originals, metric.name, retained, difference, **how)
        labels = {PLACEMENT_AXIS: "prefix"} | ({"form": "semantic"} if grid in WITH_FORMS else {})
        for split in ("forget", "retain"):
            statement = f"clean, θb diverges from another θu no more than a θu does, on {split} data"
            conditions = [Score(grid, "divergence", split, labels), Score("unlearned", "divergence", split)]
            how = {"kind": "at most", "unit": NATS, "requires": [forgets(VERBMEM)]}
            yield claim("stealth", statement, originals, "divergence", conditions, difference, **how)
