"""How long jobs will take: as long as their like took before, or a rough count of operations where nothing like them was done yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from statistics import median

from sinkscope.errors import UserError
from sinkscope.studies.jobs import Job
from sinkscope.studies.store import Store
from sinkscope.unlearning.cost_estimate import (
    BACKWARD_FLOPS,
    FORWARD_FLOPS,
    HARDWARE_UTILIZATION,
    estimate_cost,
    measure_flops,
)
from sinkscope.unlearning.recipe import Recipe

PARAMETERS = 1.3e6
"""Of a model that a study pretrains (see `benchmarks.pretraining.new_network`)."""
UNKNOWN = 10.0
"""Seconds for a job of which nothing is known."""


class Estimate:
    """Seconds by job, from the finished ones among `jobs` in the store, and from those that `learn` is told of."""

    def __init__(self, jobs: Sequence[Job], store: Store) -> None:
        self._seen: dict[str, list[float]] = {}
        self._like = {job.key: _like(job) for job in jobs}
        for job in jobs:
            manifest = store.manifest(job)
            if manifest is not None:
                self.learn(job, float(manifest.get("seconds", 0.0)))

    def learn(self, job: Job, seconds: float) -> None:
        self._seen.setdefault(self._like[job.key], []).append(seconds)

    def seconds(self, job: Job) -> float:
        """Median of its like; else the plan of an unlearning run, else the median of all jobs of its kind, else 10 s."""
        if seen := self._seen.get(self._like[job.key]):
            return median(seen)
        if job.kind in ("unlearn", "pretrain") and (planned := _planned(self._like[job.key])) is not None:
            return planned
        others = [
            seconds
            for like, each in list(self._seen.items())
            if like.startswith(f'["{job.kind}"')
            for seconds in each
        ]
        return median(others) if others else UNKNOWN


def _like(job: Job) -> str:
    """What decides how long a job takes, and little else."""
    content = job.content
    if job.kind == "unlearn":
        recipe = Recipe.parse(content["recipe"]).model_dump(mode="json")
        varied = {key: recipe[key] for key in ("model", "benchmark", "objective", "update", "optimizer")}
        return json.dumps([job.kind, varied, recipe["poison_ratio"] > 0, recipe["value_norms"]["weight"] > 0])
    if job.kind == "pretrain":
        return json.dumps(
            [
                job.kind,
                content.get("sink", ""),
                content["settings"]["steps"],
                content["settings"]["mix"]["size"],
                content["settings"]["mix"]["length"],
            ]
        )
    counts = [
        content.get("benchmark"),
        content.get("metrics"),
        bool(content.get("mask")),
        len(content.get("triggers", ())),
        len(content.get("placements", ())),
    ]
    return json.dumps([job.kind, *counts])


@cache
def _planned(like: str) -> float | None:
    kind, *described = json.loads(like)
    if kind == "pretrain":
        _, steps, size, length = described
        return (
            steps
            * size
            * length
            * PARAMETERS
            * (FORWARD_FLOPS + BACKWARD_FLOPS)
            / (HARDWARE_UTILIZATION * measure_flops())
        )
    varied, poisoned, _ = described
    try:
        recipe = Recipe.parse(
            varied | {"poison_ratio": 0.1 if poisoned else 0.0, "model": varied["model"] or "tiny"}
        )
        minutes = estimate_cost(recipe).minutes
    except UserError:
        return None
    return None if minutes is None else 60 * minutes
