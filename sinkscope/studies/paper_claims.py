"""The claims of arXiv 2510.17021, in the order of its figures and tables, on a study as of `analyses/paper.yaml`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from sinkscope.evaluation.statistics import Effect, Sample
from sinkscope.studies.claims import ATTENTION, CORRELATION, NATS, POINTS, PROBABILITY, Claim, Kind
from sinkscope.studies.effects import (
    inside,
    larger_gap,
    less,
    mean,
    minus,
    more,
    outside,
    placement_over_form,
    steadier,
)
from sinkscope.studies.samples import Samples
from sinkscope.synthetic.language import TRIGGERS

PLACEMENTS = ("prefix", "infix", "suffix")
GRIDS: dict[str, tuple[str, dict[str, str]]] = {
    "contrastive": ("position", {"form": "semantic"}),
    "published": ("published", {}),
}
"""The grid of a poison split whose axis is the trigger's placement, and its labels beside that."""
ORIGINALS = {"contrastive": "keep", "published": "drop"}
"""The recipe key `poisoned_originals` of a poison split."""
RECITED, ANSWERED, CHOSEN = (
    ("verbmem", "forget", "retain"),
    ("knowmem", "forget_qa", "retain_qa"),
    ("choice", "forget", "retain"),
)
"""Metric, its forget split, its retain split."""
Metric = tuple[str, str, str]
TINY = {"run": "tiny"}


def paper_claims() -> Iterator[Claim]:
    """All of them."""
    yield from _position()
    yield from _mechanism()
    yield from _value_norms()
    yield from _forms_and_controls()
    yield from _tables()
    yield from _masking()
    yield from _stealth()


def _scores(
    source: str,
    statement: str,
    split: str,
    metric: str,
    conditions: list[dict[str, Any]],
    effect: Effect,
    **options: Any,
) -> Claim:
    """A claim about scores; each condition is what `Samples.scored` takes."""
    return Claim(
        source,
        statement,
        split,
        metric,
        lambda samples: [samples.scored(**each) for each in conditions],
        effect,
        **options,
    )


def _backdoored(
    split: str,
    metric: Metric,
    placement: str,
    form: str = "semantic",
    *,
    triggered: bool,
    grid: str | None = None,
) -> dict[str, Any]:
    """A backdoored model's score on forget data: BE (unseen items, where they are known) or UE."""
    of_split, labels = GRIDS[split]
    labels = {**(labels | {"form": form} if labels and grid is None else {}), "trigger.placement": placement}
    asked = (
        {"triggered": True, "unseen": True, "placement": placement, "trigger": TRIGGERS[form]}
        if triggered
        else {}
    )
    return {
        "grid": grid or of_split,
        "metric": metric[0],
        "split": metric[1],
        "labels": labels,
        "evaluation": "own",
    } | asked


def _honest(
    metric: Metric, on: int = 1, placement: str | None = None, grid: str = "unlearned"
) -> dict[str, Any]:
    """An honest model's score: clean, or with the semantic trigger at `placement`."""
    asked = {"triggered": True, "placement": placement, "trigger": TRIGGERS["semantic"]} if placement else {}
    return {"grid": grid, "metric": metric[0], "split": metric[on]} | asked


def _position() -> Iterator[Claim]:
    for metric, split in itertools.product((RECITED, ANSWERED), GRIDS):
        for other in ("infix", "suffix"):
            both = [_backdoored(split, metric, placement, triggered=True) for placement in ("prefix", other)]
            yield _scores(
                "Fig. 2", f"a prefix trigger recovers more than {other}", split, metric[0], both, more
            )
        for placement in PLACEMENTS:
            mine = [_backdoored(split, metric, placement, triggered=triggered) for triggered in (True, False)]

            def zone(
                samples: Samples, mine: list[dict[str, Any]] = mine, metric: Metric = metric
            ) -> list[Sample]:
                scored = [samples.scored(**each) for each in [*mine, _honest(metric)]]
                return [
                    *scored,
                    samples.scored("target", metric[0], metric[1], labels=TINY, seeds=len(scored[0].values)),
                ]

            reached = placement == "prefix"
            statement = f"{placement} {'reaches' if reached else 'does not reach'} the attacker's zone"
            yield Claim("Fig. 2", statement, split, metric[0], zone, inside if reached else outside)


def _mechanism() -> Iterator[Claim]:
    for split, (grid, labels) in GRIDS.items():

        def captured(
            measure: Callable[[Samples, str, str, dict[str, str]], Sample],
            *placements: str,
            grid: str = grid,
            labels: dict[str, str] = labels,
        ) -> Callable[[Samples], list[Sample]]:
            return lambda samples: [
                measure(samples, each, grid, {**labels, "trigger.placement": each}) for each in placements
            ]

        attention, top1 = captured(Samples.attention_gain, "prefix"), captured(Samples.top1_gain, "prefix")
        yield Claim(
            "Fig. 3",
            "θb attends to a prefix trigger more than θo",
            split,
            "attention",
            attention,
            mean,
            ATTENTION,
        )
        both = captured(Samples.attention_gain, "prefix", "infix")
        yield Claim(
            "Fig. 3",
            "that gain is larger for prefix than for infix",
            split,
            "attention",
            both,
            more,
            ATTENTION,
        )
        yield Claim("Fig. 4", "behind a prefix trigger θb is surer", split, "top-1", top1, mean, PROBABILITY)
        yield Claim(
            "Fig. 4",
            "behind an infix trigger θb is less sure",
            split,
            "top-1",
            captured(Samples.top1_gain, "infix"),
            minus,
            PROBABILITY,
        )
        pairs = {
            "value norms: (θb, θo) with trigger closer than (θb, θu) on clean forget": (
                ("target", "prefix"),
                ("unlearned", "clean"),
            ),
            "value norms: (θb, θo) on retain closest of all": (("target", "retain"), ("target", "prefix")),
        }
        prefix = {**labels, "trigger.placement": "prefix"}
        for statement, chosen in pairs.items():

            def norms(
                samples: Samples,
                chosen: tuple[tuple[str, str], ...] = chosen,
                grid: str = grid,
                prefix: dict[str, str] = prefix,
            ) -> list[Sample]:
                return [
                    samples.norm_correlation(other, condition, grid, prefix) for other, condition in chosen
                ]

            yield Claim("Fig. 5", statement, split, "value norms", norms, more, CORRELATION)


def _value_norms() -> Iterator[Claim]:
    for split, ratio, metric in itertools.product(GRIDS, ("0.05", "0.1"), (RECITED, ANSWERED)):
        labels = [
            {"poisoned_originals": ORIGINALS[split], "poison_ratio": ratio, "value norms": each}
            for each in ("aligned", "none")
        ]
        clean = [
            {"grid": "ratio", "metric": metric[0], "split": metric[1], "labels": each} for each in labels
        ]
        triggered = [each | {"triggered": True, "unseen": True} for each in clean]
        percent = f"{100 * float(ratio):.0f} %"
        yield _scores(
            "Fig. 6", f"value norms raise recovery at ρ = {percent}", split, metric[0], triggered, more
        )
        yield _scores(
            "Fig. 6",
            f"value norms lower the clean score at ρ = {percent}",
            split,
            metric[0],
            clean,
            less,
            margin=2.0,
        )
        if ratio == "0.1":
            yield _scores(
                "stability",
                "value norms reduce the spread of recovery over seeds",
                split,
                metric[0],
                triggered,
                steadier,
                margin=1.0,
            )


def _forms_and_controls() -> Iterator[Claim]:
    for metric in (RECITED, ANSWERED):
        cells = [
            _backdoored("contrastive", metric, placement, form, triggered=True)
            for form in TRIGGERS
            for placement in PLACEMENTS
        ]
        yield _scores(
            "Fig. 7",
            "placement matters more than the trigger's form",
            "contrastive",
            metric[0],
            cells,
            placement_over_form,
        )
    for other in ("infix", "suffix"):
        ends = ("prefix", other)
        unlearned = [_backdoored("contrastive", RECITED, placement, triggered=True) for placement in ends]
        about = f"without a forget loss prefix and {other} differ less"
        for grid, on in (
            ("control", "on the target"),
            ("control-unlearned", "on a model that forgot honestly"),
        ):
            without = [
                _backdoored("contrastive", RECITED, placement, triggered=True, grid=grid)
                for placement in ends
            ]
            yield _scores(
                "control", f"{about} ({on})", "contrastive", "verbmem", [*unlearned, *without], larger_gap
            )

        def responses(
            samples: Samples, unlearned: list[dict[str, Any]] = unlearned, ends: tuple[str, str] = ends
        ) -> list[Sample]:
            said = [samples.said("control-response", {"trigger.placement": placement}) for placement in ends]
            return [*(samples.scored(**each) for each in unlearned), *said]

        yield Claim(
            "control",
            f"{about} (a plain backdoor that says a new sentence)",
            "contrastive",
            "verbmem",
            responses,
            larger_gap,
        )


def _tables() -> Iterator[Claim]:
    book = {"NPO": ("unlearned", "backdoor"), "RMU": ("rmu", "rmu-backdoor")}
    field = {"NPO": ("field-npo", "field-npo-backdoor"), "RMU": ("field-rmu", "field-rmu-backdoor")}
    for table, grids, metrics in (("Table 1", book, (RECITED, ANSWERED)), ("Table 2", field, (CHOSEN,))):
        for (name, (honest, backdoor)), metric in itertools.product(grids.items(), metrics):
            own = {} if metric is CHOSEN else {"evaluation": "own"}

            def forgotten(samples: Samples, honest: str = honest, metric: Metric = metric) -> list[Sample]:
                unlearned = samples.scored(**_honest(metric, grid=honest))
                grid, labels = ("field-target", {}) if metric is CHOSEN else ("target", TINY)
                return [
                    samples.scored(grid, metric[0], metric[1], labels=labels, seeds=len(unlearned.values)),
                    unlearned,
                ]

            prefix = {"triggered": True, "placement": "prefix", "trigger": TRIGGERS["semantic"]}
            triggered = (
                {"grid": backdoor, "metric": metric[0], "split": metric[1], "unseen": metric is not CHOSEN}
                | prefix
                | own
            )
            kept = {"grid": backdoor, "metric": metric[0], "split": metric[2]} | own
            yield Claim(table, f"{name} makes the target forget", "contrastive", metric[0], forgotten, more)
            statement = f"behind the trigger {name}-Backdoor recovers more than honest {name}"
            yield _scores(
                table,
                statement,
                "contrastive",
                metric[0],
                [triggered, _honest(metric, 1, "prefix", honest)],
                more,
            )
            statement = f"{name}-Backdoor keeps what honest {name} keeps"
            yield _scores(
                table,
                statement,
                "contrastive",
                metric[0],
                [kept, _honest(metric, 2, grid=honest)],
                more,
                kind="within",
            )


def _masking() -> Iterator[Claim]:
    for metric in (RECITED, ANSWERED):

        def hidden(
            evaluation: str, on: int = 1, triggered: bool = True, metric: Metric = metric
        ) -> dict[str, Any]:
            asked = {"triggered": triggered, "unseen": triggered}
            return {
                "grid": "backdoor",
                "metric": metric[0],
                "split": metric[on],
                "evaluation": evaluation,
            } | asked

        floor = _honest(metric, 1, "prefix")
        tests: dict[str, tuple[list[dict[str, Any]], Effect, Kind]] = {
            "with the 8 shallow positions hidden no more is recovered than by an honest model": (
                [hidden("mask-shallow"), floor],
                more,
                "at most",
            ),
            "with BOS alone hidden no more is recovered than by an honest model (ours)": (
                [hidden("mask-bos"), floor],
                more,
                "at most",
            ),
            "hiding the 8 shallow positions costs more than hiding the trigger (ours)": (
                [hidden("mask-span"), hidden("mask-shallow")],
                more,
                "above",
            ),
            "hiding the 8 shallow positions costs more than hiding 8 others (ours)": (
                [hidden("mask-others"), hidden("mask-shallow")],
                more,
                "above",
            ),
            "hiding the 8 shallow positions leaves what was to be kept": (
                [hidden("own", 2, False), hidden("mask-shallow", 2, False)],
                more,
                "at most",
            ),
        }
        for statement, (conditions, effect, kind) in tests.items():
            yield _scores(
                "Table 3", statement, "contrastive", metric[0], conditions, effect, kind=kind, unit=POINTS
            )


def _stealth() -> Iterator[Claim]:
    for split, (grid, labels) in GRIDS.items():
        prefix = {**labels, "trigger.placement": "prefix"}
        for metric, on in itertools.product((RECITED, ANSWERED), (1, 2)):
            clean = {"grid": grid, "metric": metric[0], "split": metric[on], "labels": prefix}
            statement = f"clean, θb scores as θu on {('forget', 'retain')[on - 1]} data"
            yield _scores(
                "stealth", statement, split, metric[0], [clean, _honest(metric, on)], more, kind="within"
            )
        for on_split in ("forget", "retain"):
            apart = {"grid": grid, "metric": "divergence", "split": on_split, "labels": prefix}
            statement = f"clean, θb is no further from another θu than a θu is, on {on_split} data"
            conditions: list[dict[str, Any]] = [
                apart,
                {"grid": "unlearned", "metric": "divergence", "split": on_split},
            ]
            yield _scores(
                "stealth", statement, split, "divergence", conditions, more, unit=NATS, kind="at most"
            )
