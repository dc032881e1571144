"""From a specification to jobs: which runs there are, what each is measured by, and which results each of them needs first."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.errors import StudyError, UserError
from sinkscope.evaluation.evaluate import default_retain_model
from sinkscope.evaluation.evaluated_model import Role
from sinkscope.models.built_in import BUILT_IN
from sinkscope.models.model import content_hash, load_meta_model
from sinkscope.studies.jobs import Job
from sinkscope.studies.spec import AGAINST, OWN, CaptureConfig, EvaluationConfig, GridConfig, Spec
from sinkscope.synthetic.pretraining import training_of
from sinkscope.synthetic.tiny_wmdp import BOTH
from sinkscope.triggers import Placement
from sinkscope.unlearning.perturbations import parse_perturbation
from sinkscope.unlearning.recipe import Recipe, TriggerConfig, ValueNormConfig

TINY, FIELD = "tiny", "tiny-wmdp"
PHASES = ("base", "books", "rest")


@dataclass(frozen=True)
class Run:
    """One model of a study and what is measured on it.

    `labels` are its values on the grid's axes; `model` is the job that makes it (None: given, by `name`); `poisoned_by` is the run whose poisoned passages
    are in it, of a model that others came from.
    """

    grid: str
    name: str
    labels: dict[str, Any]
    seed: int
    role: Role
    benchmark: str | None
    trigger: TriggerConfig
    model: Job | None
    poisoned_by: Job | None
    evaluations: dict[str, Job] = field(default_factory=dict)
    captures: dict[str, Job] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        return [*([self.model] if self.model else []), *self.evaluations.values(), *self.captures.values()]


def runs_of(spec: Spec) -> list[Run]:
    """All runs of a study, grid by grid.

    Raises:
        UserError: a recipe, model, benchmark or metric that the study names is not there or does not fit; the grid is named.
    """
    _digest.cache_clear()
    _benchmark.cache_clear()
    by_grid: dict[str, list[Run]] = {}
    for name, grid in spec.grids.items():
        try:
            bare = list(_bare(name, grid, spec, by_grid))
            if len({(run.name, run.seed, str(run.labels)) for run in bare}) < len(bare):
                raise StudyError(
                    "a run is asked for twice; give every seed, model, alteration and value of an axis once"
                )
            by_grid[name] = bare
            others = _by_seed(grid.against, by_grid) if grid.against else None
            by_grid[name] = [_measured(run, grid, spec, others) for run in bare]
        except UserError as error:
            raise StudyError(f"study grid {name!r}: {error}") from error
    return [run for runs in by_grid.values() for run in runs]


def _bare(name: str, grid: GridConfig, spec: Spec, before: dict[str, list[Run]]) -> Iterator[Run]:
    """The runs of a grid, without what is measured on them."""
    if grid.models:
        for model in grid.models:
            if model in spec.models:
                made = _pretrained(model, spec)
                yield Run(
                    name, model, {}, spec.models[model].seed, "target", TINY, TriggerConfig(), made, None
                )
                continue
            role: Role = (
                "retain" if model.endswith("-retrained") else "target" if model in BUILT_IN else "other"
            )
            benchmark = BUILT_IN[model][0] if model in BUILT_IN else None
            yield Run(name, model, {}, 0, role, benchmark, TriggerConfig(), None, None)
        return
    parents: list[Run | None] = list(before[grid.after]) if grid.after else [None]
    for parent in parents:
        for alteration in grid.alterations or ():
            assert parent is not None
            parse_perturbation(alteration)
            labels = {
                **parent.labels,
                "alteration": ", ".join([*filter(None, [parent.labels.get("alteration")]), alteration]),
            }
            job = Job(
                "alter",
                {"alteration": alteration, **_given(parent)},
                _needed(parent),
                _fixed(parent),
                _label(name, labels, parent.seed),
            )
            yield Run(
                name,
                job.key,
                labels,
                parent.seed,
                parent.role,
                parent.benchmark,
                parent.trigger,
                job,
                parent.poisoned_by,
            )
        if grid.alterations:
            continue
        for labels, changes in grid.points():
            for seed in [parent.seed] if parent else grid.seeds or spec.seeds:
                recipe = Recipe.read(
                    grid.recipe or spec.base, {"seed": seed} | changes, "its `set` or `axes`"
                )
                inherited = parent.labels if parent else {}
                if twice := inherited.keys() & labels:
                    raise StudyError(
                        f"axis {min(twice)!r} is one of grid {grid.after!r} already; call it otherwise, and give names with changes"
                    )
                labelled = {**inherited, **labels}
                start = parent
                if recipe.model in spec.models:
                    start = Run(
                        name,
                        recipe.model,
                        {},
                        seed,
                        "target",
                        TINY,
                        TriggerConfig(),
                        _pretrained(recipe.model, spec),
                        None,
                    )
                job = unlearning(recipe, start, _label(name, labelled, seed))
                poisoned = recipe.poison_ratio > 0
                if parent and not poisoned and parent.role not in ("target", "retain"):
                    yield Run(
                        name,
                        job.key,
                        labelled,
                        seed,
                        parent.role,
                        parent.benchmark,
                        parent.trigger,
                        job,
                        parent.poisoned_by,
                    )
                else:
                    yield Run(
                        name,
                        job.key,
                        labelled,
                        seed,
                        "backdoored" if poisoned else "unlearned",
                        recipe.benchmark,
                        recipe.trigger,
                        job,
                        job,
                    )


def _pretrained(name: str, spec: Spec) -> Job:
    """The jobs of a model's phases, one after the other."""
    part = spec.models[name]
    if part.knows == "both":
        both = BOTH if part.steps is None else replace(BOTH, steps=part.steps)
        content = {"model": FIELD, "seed": part.seed, "phase": "both", "settings": asdict(both)}
        return Job(
            "pretrain",
            content,
            {},
            {"model": _digest(FIELD), "benchmark": _benchmark(FIELD).content_hash()},
            name,
        )
    training = training_of(part.sink, part.idle)
    training = training if part.steps is None else training.shortened(part.steps)
    job: Job | None = None
    for phase in PHASES:
        content = {
            "sink": part.sink,
            "seed": part.seed,
            "phase": phase,
            "settings": asdict(getattr(training, phase)),
        }
        job = Job(
            "pretrain", content, {"model": job} if job else {}, {"model": _digest(TINY)}, f"{name} {phase}"
        )
    assert job is not None
    return job


def _label(grid: str, labels: dict[str, Any], seed: int | None = None) -> str:
    return " ".join(
        [grid, *(str(value) for value in labels.values()), *([] if seed is None else [f"seed {seed}"])]
    )


def unlearning(recipe: Recipe, parent: Run | None, label: str) -> Job:
    """The job that carries out a recipe, from a run's model instead of its own if there is one. What a recipe says without effect is left out of its name, so
    that the same honest run serves all."""
    if recipe.poison_ratio == 0:
        recipe = recipe.model_copy(update={"trigger": TriggerConfig(), "poisoned_originals": "keep"})
    if parent:
        recipe = recipe.model_copy(update={"model": "" if parent.model else parent.name})
    part = recipe.value_norms
    needs = _needed(parent) if parent else {}
    aligned = part.unlearned if part.weight > 0 and part.kind == "align" else None
    recipe = recipe.model_copy(
        update={
            "value_norms": part.model_copy(update={"unlearned": aligned})
            if part.weight > 0
            else ValueNormConfig()
        }
    )
    if aligned == "auto":
        needs |= {"unlearned": unlearning(recipe.without_backdoor(), parent, f"{label}, honest")}
    content = recipe.non_default()
    fixed = {"benchmark": _benchmark(recipe.benchmark).content_hash()} | (
        _fixed(parent) if parent else {"model": _digest(recipe.model)}
    )
    if aligned not in (None, "auto"):
        fixed["unlearned"] = _digest(str(aligned))
    return Job("unlearn", {"recipe": content}, needs, fixed, label)


def _needed(parent: Run) -> dict[str, Job]:
    return {"model": parent.model} if parent.model else {}


def _given(parent: Run) -> dict[str, str]:
    return {} if parent.model else {"model": parent.name}


def _fixed(parent: Run) -> dict[str, str]:
    return {} if parent.model else {"model": _digest(parent.name)}


def _by_seed(grid: str, by_grid: dict[str, list[Run]]) -> dict[int, Run]:
    found = {run.seed: run for run in by_grid[grid]}
    if len(found) < len(by_grid[grid]):
        raise StudyError(
            f"grid {grid!r} has several runs of one seed, so nothing can be compared against it; name a grid without axes"
        )
    return found


def _measured(run: Run, grid: GridConfig, spec: Spec, others: dict[int, Run] | None) -> Run:
    evaluations = {name: _evaluation(run, spec.evaluations[name]) for name in grid.evaluations}
    if others is not None and (other := _compared(run, grid, spec, others)) is not None:
        evaluations[AGAINST] = _divergence(run, other)
    captures = {name: _capture(run, spec.captures[name]) for name in grid.captures}
    return Run(**(vars(run) | {"evaluations": evaluations, "captures": captures}))


def _compared(run: Run, grid: GridConfig, spec: Spec, others: dict[int, Run]) -> Run | None:
    """The run that one is compared with: of the next seed, or the given model; None where there is no other seed."""
    seeds = sorted(others)
    assert grid.against is not None
    if spec.grids[grid.against].models:
        return others[seeds[0]]
    if run.seed not in others:
        raise StudyError(
            f"grid {grid.against!r}, which it is compared against, has no run of seed {run.seed}; give both the same seeds"
        )
    return others[seeds[(seeds.index(run.seed) + 1) % len(seeds)]] if len(seeds) > 1 else None


def _measuring(run: Run, benchmark: str | None) -> tuple[dict[str, Any], dict[str, Job], dict[str, str]]:
    """What evaluations and captures of a run have in common: content, needs and fixed hashes."""
    used = benchmark or run.benchmark
    if used is None:
        raise StudyError(f"model {run.name!r} brings no benchmark; name one in the evaluation")
    linked = (
        run.poisoned_by is not None and used == run.benchmark
    )  # rows of another benchmark's forget set would say nothing of this one's
    needs = _needed(run) | ({"poisoned_by": run.poisoned_by} if linked and run.poisoned_by else {})
    content = {"benchmark": used, "role": run.role, "seed": run.seed, **_given(run)}
    return content, needs, _fixed(run) | {"benchmark": _benchmark(used).content_hash()}


def _evaluation(run: Run, part: EvaluationConfig) -> Job:
    content, needs, fixed = _measuring(run, part.benchmark)
    benchmark = _benchmark(content["benchmark"])
    retain_model = default_retain_model(benchmark, part.metrics)
    if retain_model in BUILT_IN:
        fixed |= {"retain_model": _digest(str(retain_model))}
    texts = [
        (run.trigger.text, run.trigger.form) if text == OWN else (text, "semantic") for text in part.triggers
    ]
    attempts = {
        (text, place): [text, form, place] for text, form in texts for place in _places(run, part.placements)
    }
    content |= {
        "triggers": ([None] if part.clean else []) + list(attempts.values()),
        "metrics": part.metrics,
        "mask": part.mask,
        "items": part.items,
        "retain_model": retain_model,
    }
    return Job("evaluate", content, needs, fixed, _label(run.grid, run.labels, run.seed))


def _places(run: Run, placements: list[str]) -> list[str]:
    """Each once, also where the run's own is one of the others."""
    return list(
        dict.fromkeys(
            run.trigger.placement if place == OWN else str(Placement.parse(place)) for place in placements
        )
    )


def _capture(run: Run, part: CaptureConfig) -> Job:
    content, needs, fixed = _measuring(run, None)
    content |= {"trigger": [run.trigger.text, run.trigger.form], "placements": _places(run, part.placements)}
    content |= {"passages": part.passages, "bin": part.bin}
    return Job("capture", content, needs, fixed, _label(run.grid, run.labels, run.seed))


def _divergence(run: Run, other: Run) -> Job:
    content, needs, fixed = _measuring(run, None)
    needs |= {"other": other.model} if other.model else {}
    if not other.model:
        content["other"], fixed["other"] = other.name, _digest(other.name)
    return Job("diverge", content, needs, fixed, _label(run.grid, run.labels, run.seed))


@functools.cache
def _digest(model: str) -> str:
    if model not in BUILT_IN:
        load_meta_model(model)  # what cannot be loaded is told before anything is done
    return content_hash(model)


@functools.cache
def _benchmark(name: str) -> Benchmark:
    return load_benchmark(name)
