"""Estimated time of jobs: that of similar finished jobs, or else a rough count of operations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from sinkscope.errors import UserError
from sinkscope.studies.jobs import Job, Kind, Store
from sinkscope.unlearning.cost_estimate import (
    BACKWARD_FLOPS,
    FORWARD_FLOPS,
    HARDWARE_UTILIZATION,
    estimate_cost,
    measure_flops,
)
from sinkscope.unlearning.recipe import Recipe

PRETRAINED_PARAMETERS = 1.3e6
"""Parameters of a model that a study pretrains (see `synthetic.pretraining.init_model`)."""
DEFAULT_SECONDS = 10.0
"""Estimate for a job of a kind of which none has finished."""


def cost_class(job: Job) -> tuple[Kind, str]:
    """Kind of a job and, as JSON, what determines its time: jobs of one class take equally long."""
    content = job.content
    size: list[Any]
    if job.kind == "unlearn":
        recipe = Recipe.parse(content["recipe"])
        keys = {"model", "benchmark", "objective", "update", "optimizer"}
        values = recipe.model_dump(mode="json", include=keys)
        size = [values, recipe.poison_ratio > 0, recipe.value_norms.weight > 0]
    elif job.kind == "pretrain":
        settings = content["settings"]
        size = [content.get("sink"), settings["steps"], settings["mix"]["size"], settings["mix"]["length"]]
    else:
        names = [content.get("benchmark"), content.get("metrics"), bool(content.get("mask"))]
        size = [*names, len(content.get("conditions", ())), len(content.get("placements", ()))]
    return job.kind, json.dumps(size, sort_keys=True)


class Estimate:
    """Seconds per job, from the finished ones among `jobs` in the store and from those added later."""

    def __init__(self, jobs: Sequence[Job], store: Store) -> None:
        self._classes = {job.key: cost_class(job) for job in jobs}
        self._measured: dict[tuple[Kind, str], list[float]] = {}
        self._counted: dict[tuple[Kind, str], float | None] = {}
        for job in jobs:
            if manifest := store.manifest(job):
                self.add(job, float(manifest.get("seconds", 0.0)))

    def add(self, job: Job, seconds: float) -> None:
        """Use the time of a finished job for others of its class."""
        self._measured.setdefault(self._classes[job.key], []).append(seconds)

    def seconds(self, job: Job) -> float:
        """Median of its class; else a count of operations (training), the median of its kind, or 10 s."""
        job_class = self._classes[job.key]
        if measured := self._measured.get(job_class):
            return median(measured)
        if job_class not in self._counted:
            self._counted[job_class] = _count_seconds(job)
        if (counted := self._counted[job_class]) is not None:
            return counted
        classes = self._measured.items()
        same_kind = [seconds for (kind, _), values in classes if kind == job.kind for seconds in values]
        return median(same_kind) if same_kind else DEFAULT_SECONDS


def _count_seconds(job: Job) -> float | None:
    """Seconds of a training job by its operations; None where they cannot be counted."""
    if job.kind == "pretrain":
        settings = job.content["settings"]
        tokens = settings["steps"] * settings["mix"]["size"] * settings["mix"]["length"]
        operations = tokens * PRETRAINED_PARAMETERS * (FORWARD_FLOPS + BACKWARD_FLOPS)
        return operations / (HARDWARE_UTILIZATION * measure_flops())
    if job.kind != "unlearn":
        return None
    recipe = Recipe.parse(job.content["recipe"])
    try:
        minutes = estimate_cost(recipe.model_copy(update={"model": recipe.model or "tiny"})).minutes
    except UserError:
        return None
    return None if minutes is None else 60 * minutes
