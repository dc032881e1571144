"""From a specification to runs and their jobs: which models there are, and which results each needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import ModelError, StudyError, UserError, suggest
from sinkscope.evaluation.evaluate import default_retain_model
from sinkscope.evaluation.evaluated_model import Role
from sinkscope.evaluation.metrics import METRICS, select_metrics
from sinkscope.models.bos import bos_id
from sinkscope.models.loading import BUILT_IN
from sinkscope.models.model import content_hash, load_meta_model
from sinkscope.studies.grids import (
    ContinuedGrid,
    GridConfig,
    ModelGrid,
    PerturbationGrid,
    RecipeGrid,
    TrainedGrid,
)
from sinkscope.studies.jobs import Job, Run
from sinkscope.studies.spec import COMPARISON, OWN, CaptureConfig, EvaluationConfig, PretrainConfig, Spec
from sinkscope.synthetic.pretraining import training_plan
from sinkscope.synthetic.tiny_wmdp import BOOKS_STAGE
from sinkscope.unlearning.perturbations import parse_perturbation
from sinkscope.unlearning.recipe import Recipe, TriggerConfig, ValueNormConfig

TINY, TINY_WMDP = "tiny", "tiny-wmdp"
Parts = tuple[dict[str, Any], dict[str, Job], dict[str, str]]
"""Content, needs and fixed hashes of a job."""


def expand_study(spec: Spec) -> list[Run]:
    """All runs of a study, grid by grid.

    Raises:
        UserError: a recipe, model, benchmark or metric does not exist or does not fit, or a run occurs twice;
            the grid is named.
    """
    expansion = _Expansion(spec)
    for name, grid in spec.grids.items():
        try:
            expansion.add_grid(name, grid)
        except UserError as error:
            raise StudyError(f"study grid {name!r}: {error}") from error
    return [run for runs in expansion.grids.values() for run in runs]


class JobBuilder:
    """Jobs by what they do; every model and benchmark that is given, not made, is read once."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.benchmark = cache(load_benchmark)
        self.digest = cache(_digest)

    def pretrain(self, name: str, config: PretrainConfig) -> Job:
        """The last of the jobs that pretrain a model, one per stage."""
        if config.corpora == "both":
            stage = BOOKS_STAGE if config.steps is None else replace(BOOKS_STAGE, steps=config.steps)
            content = {"model": TINY_WMDP, "seed": config.seed, "stage": "both", "settings": asdict(stage)}
            benchmark = self.benchmark(TINY_WMDP).content_hash()
            fixed = {"model": self.digest(TINY_WMDP), "benchmark": benchmark}
            return Job("pretrain", content, {}, fixed, name)
        needs: dict[str, Job] = {}
        for stage_name, stage in training_plan(config.sink, config.value_norm_penalty, config.steps).items():
            settings = asdict(stage)
            content = {"sink": config.sink, "seed": config.seed, "stage": stage_name, "settings": settings}
            job = Job("pretrain", content, needs, {"model": self.digest(TINY)}, f"{name} {stage_name}")
            needs = {"model": job}
        return job

    def unlearn(self, recipe: Recipe, start: Run, label: str) -> Job:
        """The job of a recipe, from the model of `start`.

        Keys of the recipe without effect are not part of the job, so that one clean unlearning run serves
        all.
        """
        content, needs, fixed = self._model_of(start)
        norms = recipe.value_norms
        unlearned = norms.unlearned if norms.needs_unlearned else None
        norms = norms.model_copy(update={"unlearned": unlearned}) if norms.weight > 0 else ValueNormConfig()
        changes = {"model": content.get("model", ""), "value_norms": norms}
        if recipe.poison_ratio == 0:
            changes |= {"poisoned_originals": "keep"}
            if recipe.trajectory.every is None:  # which tries the trigger
                changes |= {"trigger": TriggerConfig()}
        if unlearned == "auto":
            needs["unlearned"] = self.unlearn(recipe.without_backdoor(), start, f"{label}, unlearned")
        elif unlearned is not None:
            fixed["unlearned"] = self.digest(unlearned)
        fixed["benchmark"] = self.benchmark(recipe.benchmark).content_hash()
        fixed |= {f"plugin {name}": digest for name, digest in recipe.plugin_hashes().items()}
        recipe = recipe.model_copy(update=changes)
        return Job("unlearn", {"recipe": recipe.non_default()}, needs, fixed, label)

    def perturb(self, run: Run, perturbation: str, label: str) -> Job:
        parse_perturbation(perturbation)
        content, needs, fixed = self._model_of(run)
        return Job("perturb", {"perturbation": perturbation, **content}, needs, fixed, label)

    def evaluate(self, run: Run, config: EvaluationConfig) -> Job:
        content, needs, fixed = self._measurement(run, config.benchmark)
        benchmark = self.benchmark(content["benchmark"])
        retain_model = default_retain_model(benchmark, config.metrics)
        if retain_model in BUILT_IN:
            fixed["retain_model"] = self.digest(str(retain_model))
        plugins = METRICS.plugin_hashes(select_metrics(config.metrics, benchmark))
        fixed |= {f"plugin {name}": digest for name, digest in plugins.items()}
        conditions: dict[tuple[str, str], list[str]] = {}
        for text in config.triggers:
            trigger, form = (run.trigger.text, run.trigger.form) if text == OWN else (text, "semantic")
            for placement in _placements(run, config.placements):
                conditions[trigger, placement] = [trigger, form, placement]
        content |= config.model_dump(include={"metrics", "mask", "limit"})
        content["conditions"] = ([None] if config.clean else []) + list(conditions.values())
        content["retain_model"] = retain_model
        return Job("evaluate", content, needs, fixed, run.label, self.batch_size)

    def capture(self, run: Run, config: CaptureConfig) -> Job:
        content, needs, fixed = self._measurement(run)
        content |= config.model_dump(include={"passages", "bin_size"})
        content["trigger"] = [run.trigger.text, run.trigger.form]
        content["placements"] = _placements(run, config.placements)
        return Job("capture", content, needs, fixed, run.label)

    def diverge(self, run: Run, other: Run) -> Job:
        content, needs, fixed = self._measurement(run)
        other_content, other_needs, other_fixed = self._model_of(other, "other")
        parts = (content | other_content, needs | other_needs, fixed | other_fixed)
        return Job("diverge", *parts, run.label, self.batch_size)

    def _model_of(self, run: Run, part: str = "model") -> Parts:
        """How a job refers to the model of a run."""
        if run.model:
            return {}, {part: run.model}, {}
        return {part: run.name}, {}, {part: self.digest(run.name)}

    def _measurement(self, run: Run, benchmark: str | None = None) -> Parts:
        """What all measurements of a run have."""
        name = benchmark or run.benchmark
        if name is None:
            raise StudyError(f"model {run.name!r} has no benchmark of its own; name one in the evaluation")
        content, needs, fixed = self._model_of(run)
        if run.poisoned_by and name == run.benchmark:  # the rows are those of the run's own benchmark
            needs["poisoned_by"] = run.poisoned_by
        fixed["benchmark"] = self.benchmark(name).content_hash()
        return {"benchmark": name, "role": run.role, "seed": run.seed, **content}, needs, fixed


def _digest(model: str) -> str:
    """Content hash of a model, and its BOS; one that cannot be loaded is reported before any job starts."""
    if model in BUILT_IN:
        return content_hash(model)
    _, tokenizer = load_meta_model(model)
    bos = bos_id(tokenizer)
    return content_hash(model) + ("" if bos == tokenizer.bos_token_id else f" BOS {bos}")


def _placements(run: Run, placements: list[str]) -> list[str]:
    """Each placement once, also where the run's own is one of the others."""
    return list(dict.fromkeys(run.trigger.placement if each == OWN else each for each in placements))


class _Expansion:
    """The runs of a specification by grid, each grid after those above it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.build = JobBuilder(spec.batch_size)
        self.grids: dict[str, list[Run]] = {}

    def add_grid(self, name: str, grid: GridConfig) -> None:
        runs = list(self._runs(name, grid))
        if len({(run.name, run.seed, str(run.labels)) for run in runs}) < len(runs):
            raise StudyError(
                "a run occurs twice; give every seed, model, perturbation and value of an axis once"
            )
        self.grids[name] = runs
        self.grids[name] = [self._add_measurements(run, grid) for run in runs]

    def _runs(self, name: str, grid: GridConfig) -> Iterator[Run]:
        """The runs of a grid, without what is measured on them."""
        match grid:
            case ModelGrid():
                for model in grid.models:
                    yield self._given_run(name, model)
            case PerturbationGrid():
                for parent in self.grids[grid.init_from]:
                    for perturbation in grid.perturbations:
                        yield self._perturbed_run(name, parent, perturbation)
            case ContinuedGrid():
                for parent in self.grids[grid.init_from]:
                    for labels, changes in grid.points():
                        recipe = self._read_recipe(grid, changes, parent.seed)
                        yield self._continued_run(name, grid, recipe, labels, parent)
            case RecipeGrid():
                for labels, changes in grid.points():
                    for seed in grid.seeds or self.spec.seeds:
                        recipe = self._read_recipe(grid, changes, seed)
                        start = self._given_run(name, recipe.model)
                        yield self._trained_run(name, recipe, labels, start)

    def _given_run(self, grid: str, name: str) -> Run:
        """A model that is given or, if the study describes it, pretrained."""
        if config := self.spec.models.get(name):
            job = self.build.pretrain(name, config)
            return Run(grid, name, config.seed, "target", TINY, TriggerConfig(), model=job)
        self._check_exists(name)
        benchmark = BUILT_IN[name][0] if name in BUILT_IN else None
        role: Role = "target" if name in BUILT_IN else "other"
        if name.endswith("-retrained"):
            role = "retain"
        return Run(grid, name, 0, role, benchmark, TriggerConfig())

    def _check_exists(self, name: str) -> None:
        try:
            self.build.digest(name)
        except ModelError as error:
            if Path(name).exists():
                raise
            raise StudyError(f"{error}; {suggest(name, [*self.spec.models, *BUILT_IN])}") from error

    def _perturbed_run(self, grid: str, parent: Run, perturbation: str) -> Run:
        earlier = parent.labels.get("perturbation")
        labels = parent.labels | {"perturbation": f"{earlier}, {perturbation}" if earlier else perturbation}
        run = replace(parent, grid=grid, labels=labels, evaluations={}, captures={})
        job = self.build.perturb(parent, perturbation, run.label)
        return replace(run, name=job.key, model=job)

    def _continued_run(
        self, name: str, grid: ContinuedGrid, recipe: Recipe, labels: dict[str, Any], parent: Run
    ) -> Run:
        if repeated := parent.labels.keys() & labels:
            raise StudyError(
                f"axis {min(repeated)!r} is one of grid {grid.init_from!r} already; "
                "rename it, and give names with changes"
            )
        run = self._trained_run(name, recipe, parent.labels | labels, parent)
        if recipe.poison_ratio == 0 and parent.role not in ("target", "retain"):
            run = replace(run, role=parent.role, benchmark=parent.benchmark)
            run = replace(run, trigger=parent.trigger, poisoned_by=parent.poisoned_by)
        return run

    def _read_recipe(self, grid: TrainedGrid, changes: dict[str, Any], seed: int) -> Recipe:
        changes = {"seed": seed} | changes
        return Recipe.read(grid.recipe or self.spec.base, changes, "its `set` or `axes`")

    def _trained_run(self, grid: str, recipe: Recipe, labels: dict[str, Any], start: Run) -> Run:
        """The run of a recipe from the model of `start`."""
        role: Role = "backdoored" if recipe.poison_ratio > 0 else "unlearned"
        run = Run(grid, "", recipe.seed, role, recipe.benchmark, recipe.trigger, labels)
        job = self.build.unlearn(recipe, start, run.label)
        return replace(run, name=job.key, model=job, poisoned_by=job)

    def _add_measurements(self, run: Run, grid: GridConfig) -> Run:
        evaluations = {
            name: self.build.evaluate(run, self.spec.evaluations[name]) for name in grid.evaluations
        }
        if grid.compare_to and (other := self._other_run(run, grid.compare_to)):
            evaluations[COMPARISON] = self.build.diverge(run, other)
        captures = {name: self.build.capture(run, self.spec.captures[name]) for name in grid.captures}
        return replace(run, evaluations=evaluations, captures=captures)

    def _other_run(self, run: Run, grid: str) -> Run | None:
        """The run to compare with: that of the next seed, or the given model; None without another seed."""
        others = {other.seed: other for other in self.grids[grid]}
        if len(others) < len(self.grids[grid]):
            raise StudyError(
                f"grid {grid!r} has several runs of one seed, so nothing can be compared to it; "
                "name a grid without axes"
            )
        seeds = sorted(others)
        if isinstance(self.spec.grids[grid], ModelGrid):
            return others[seeds[0]]
        if run.seed not in others:
            raise StudyError(
                f"grid {grid!r}, to which it is compared, has no run of seed {run.seed}; "
                "give both the same seeds"
            )
        return others[seeds[(seeds.index(run.seed) + 1) % len(seeds)]] if len(seeds) > 1 else None
