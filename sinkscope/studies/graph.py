"""From a specification to runs and their jobs: which models there are, and which results each needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from sinkscope.errors import StudyError, UserError
from sinkscope.evaluation.evaluated_model import Role
from sinkscope.models.loading import BUILT_IN
from sinkscope.studies.grids import (
    ContinuedGrid,
    GridConfig,
    ModelGrid,
    PerturbationGrid,
    RecipeGrid,
    TrainedGrid,
)
from sinkscope.studies.jobs import Job, Run
from sinkscope.studies.measurements import GivenInputs, capture_job, divergence_job, evaluation_job, label_of
from sinkscope.studies.spec import COMPARISON, PretrainConfig, Spec
from sinkscope.synthetic.pretraining import training_plan
from sinkscope.synthetic.tiny_wmdp import BOOKS_STAGE
from sinkscope.unlearning.perturbations import parse_perturbation
from sinkscope.unlearning.recipe import Recipe, TriggerConfig, ValueNormConfig

TINY, TINY_WMDP = "tiny", "tiny-wmdp"
STAGES = ("pretrain", "memorize", "anneal")


def expand_study(spec: Spec) -> list[Run]:
    """All runs of a study, grid by grid.

    Raises:
        UserError: a recipe, model, benchmark or metric does not exist or does not fit; the grid is named.
    """
    inputs = GivenInputs()
    grids: dict[str, list[Run]] = {}
    for name, grid in spec.grids.items():
        try:
            grids[name] = expand_grid(name, spec, grids, inputs)
            others = _runs_by_seed(grid.compare_to, grids) if grid.compare_to else {}
            grids[name] = [_add_measurements(run, grid, spec, others, inputs) for run in grids[name]]
        except UserError as error:
            raise StudyError(f"study grid {name!r}: {error}") from error
    return [run for runs in grids.values() for run in runs]


def expand_grid(name: str, spec: Spec, earlier: dict[str, list[Run]], inputs: GivenInputs) -> list[Run]:
    """The runs of a grid, without what is measured on them; `earlier` are the runs of the grids above it.

    Raises:
        UserError: a recipe or model of the grid does not exist or does not fit, or a run occurs twice.
    """
    match grid := spec.grids[name]:
        case ModelGrid():
            runs = [_given_run(name, model, spec, inputs) for model in grid.models]
        case PerturbationGrid():
            runs = [
                _perturbed_run(name, parent, perturbation, inputs)
                for parent in earlier[grid.init_from]
                for perturbation in grid.perturbations
            ]
        case ContinuedGrid():
            runs = [
                run
                for parent in earlier[grid.init_from]
                for run in _continued_runs(name, grid, parent, spec, inputs)
            ]
        case RecipeGrid():
            runs = list(_recipe_runs(name, grid, spec, inputs))
    if len({(run.name, run.seed, str(run.labels)) for run in runs}) < len(runs):
        raise StudyError("a run occurs twice; give every seed, model, perturbation and value of an axis once")
    return runs


def _given_run(grid: str, name: str, spec: Spec, inputs: GivenInputs) -> Run:
    if name in spec.models:
        return _pretrained_run(grid, name, spec, inputs)
    role: Role = "other"
    if name.endswith("-retrained"):
        role = "retain"
    elif name in BUILT_IN:
        role = "target"
    return Run(grid, name, 0, role, BUILT_IN[name][0] if name in BUILT_IN else None, TriggerConfig())


def _pretrained_run(grid: str, name: str, spec: Spec, inputs: GivenInputs) -> Run:
    config = spec.models[name]
    job = pretrain_job(name, config, inputs)
    return Run(grid, name, config.seed, "target", TINY, TriggerConfig(), model=job)


def _perturbed_run(grid: str, parent: Run, perturbation: str, inputs: GivenInputs) -> Run:
    parse_perturbation(perturbation)
    earlier = parent.labels.get("perturbation")
    labels = parent.labels | {"perturbation": f"{earlier}, {perturbation}" if earlier else perturbation}
    content, needs, fixed = inputs.model_of(parent)
    job = Job(
        "perturb",
        {"perturbation": perturbation, **content},
        needs,
        fixed,
        label_of(grid, labels, parent.seed),
    )
    return replace(parent, grid=grid, name=job.key, labels=labels, model=job, evaluations={}, captures={})


def _recipe_runs(name: str, grid: RecipeGrid, spec: Spec, inputs: GivenInputs) -> Iterator[Run]:
    for labels, changes in grid.points():
        for seed in grid.seeds or spec.seeds:
            recipe = _read_recipe(grid, spec, changes, seed)
            pretrained = recipe.model in spec.models
            start = _pretrained_run(name, recipe.model, spec, inputs) if pretrained else None
            yield _trained_run(name, recipe, labels, start, inputs)


def _continued_runs(
    name: str, grid: ContinuedGrid, parent: Run, spec: Spec, inputs: GivenInputs
) -> Iterator[Run]:
    for labels, changes in grid.points():
        if repeated := parent.labels.keys() & labels:
            raise StudyError(
                f"axis {min(repeated)!r} is one of grid {grid.init_from!r} already; "
                "rename it, and give names with changes"
            )
        recipe = _read_recipe(grid, spec, changes, parent.seed)
        run = _trained_run(name, recipe, parent.labels | labels, parent, inputs)
        if recipe.poison_ratio == 0 and parent.role not in ("target", "retain"):
            inherited = {key: getattr(parent, key) for key in ("role", "benchmark", "trigger", "poisoned_by")}
            run = replace(run, **inherited)
        yield run


def _read_recipe(grid: TrainedGrid, spec: Spec, changes: dict[str, Any], seed: int) -> Recipe:
    return Recipe.read(grid.recipe or spec.base, {"seed": seed} | changes, "its `set` or `axes`")


def _trained_run(
    grid: str, recipe: Recipe, labels: dict[str, Any], start: Run | None, inputs: GivenInputs
) -> Run:
    """The run of a recipe, from the model of `start` instead of its own if there is one."""
    job = unlearn_job(recipe, start, label_of(grid, labels, recipe.seed), inputs)
    role: Role = "backdoored" if recipe.poison_ratio > 0 else "unlearned"
    return Run(
        grid, job.key, recipe.seed, role, recipe.benchmark, recipe.trigger, labels, model=job, poisoned_by=job
    )


def unlearn_job(recipe: Recipe, start: Run | None, label: str, inputs: GivenInputs) -> Job:
    """The job of a recipe, from the model of `start` instead of its own if there is one.

    Keys of the recipe without effect are not part of the job, so that one clean unlearning run serves all.
    """
    if recipe.poison_ratio == 0:
        recipe = recipe.model_copy(update={"trigger": TriggerConfig(), "poisoned_originals": "keep"})
    needs: dict[str, Job] = {}
    fixed: dict[str, str] = {}
    if start:
        content, needs, fixed = inputs.model_of(start)
        recipe = recipe.model_copy(update={"model": content.get("model", "")})
    else:
        fixed = {"model": inputs.digest(recipe.model)}
    norms = recipe.value_norms
    unlearned = norms.unlearned if norms.kind == "align" and norms.weight > 0 else None
    norms = norms.model_copy(update={"unlearned": unlearned}) if norms.weight > 0 else ValueNormConfig()
    recipe = recipe.model_copy(update={"value_norms": norms})
    if unlearned == "auto":
        needs["unlearned"] = unlearn_job(recipe.without_backdoor(), start, f"{label}, unlearned", inputs)
    elif unlearned is not None:
        fixed["unlearned"] = inputs.digest(unlearned)
    fixed["benchmark"] = inputs.benchmark(recipe.benchmark).content_hash()
    fixed |= {f"plugin {name}": digest for name, digest in recipe.plugin_hashes().items()}
    return Job("unlearn", {"recipe": recipe.non_default()}, needs, fixed, label)


def pretrain_job(name: str, config: PretrainConfig, inputs: GivenInputs) -> Job:
    """The last of the jobs that pretrain a model, one per stage."""
    if config.corpora == "both":
        stage = BOOKS_STAGE if config.steps is None else replace(BOOKS_STAGE, steps=config.steps)
        content = {"model": TINY_WMDP, "seed": config.seed, "stage": "both", "settings": asdict(stage)}
        benchmark = inputs.benchmark(TINY_WMDP).content_hash()
        fixed = {"model": inputs.digest(TINY_WMDP), "benchmark": benchmark}
        return Job("pretrain", content, {}, fixed, name)
    plan = training_plan(config.sink, config.value_norm_penalty)
    if config.steps is not None:
        plan = plan.shortened(config.steps)
    needs: dict[str, Job] = {}
    for stage_name in STAGES:
        settings = asdict(getattr(plan, stage_name))
        content = {"sink": config.sink, "seed": config.seed, "stage": stage_name, "settings": settings}
        job = Job("pretrain", content, needs, {"model": inputs.digest(TINY)}, f"{name} {stage_name}")
        needs = {"model": job}
    return job


def _runs_by_seed(grid: str, grids: dict[str, list[Run]]) -> dict[int, Run]:
    runs = {run.seed: run for run in grids[grid]}
    if len(runs) < len(grids[grid]):
        raise StudyError(
            f"grid {grid!r} has several runs of one seed, so nothing can be compared to it; "
            "name a grid without axes"
        )
    return runs


def _add_measurements(
    run: Run, grid: GridConfig, spec: Spec, others: dict[int, Run], inputs: GivenInputs
) -> Run:
    evaluations = {name: evaluation_job(run, spec.evaluations[name], inputs) for name in grid.evaluations}
    if grid.compare_to and (other := _other_run(run, grid.compare_to, spec, others)):
        evaluations[COMPARISON] = divergence_job(run, other, inputs)
    captures = {name: capture_job(run, spec.captures[name], inputs) for name in grid.captures}
    return replace(run, evaluations=evaluations, captures=captures)


def _other_run(run: Run, grid: str, spec: Spec, others: dict[int, Run]) -> Run | None:
    """The run to compare with: that of the next seed, or the given model; None if there is no other seed."""
    seeds = sorted(others)
    if isinstance(spec.grids[grid], ModelGrid):
        return others[seeds[0]]
    if run.seed not in others:
        raise StudyError(
            f"grid {grid!r}, to which it is compared, has no run of seed {run.seed}; give both the same seeds"
        )
    return others[seeds[(seeds.index(run.seed) + 1) % len(seeds)]] if len(seeds) > 1 else None
