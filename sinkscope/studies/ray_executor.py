"""The Ray engine: jobs go to the workers of an existing cluster, as soon as what they need is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sinkscope.errors import StudyError, first_line
from sinkscope.studies.executors import Executor, attempt
from sinkscope.studies.jobs import Job
from sinkscope.studies.progress import StudyProgress
from sinkscope.studies.store import Store

RETRIES = 10
"""How often a job is given to another worker when its own is lost; it goes on from its newest checkpoint."""


def run_on_ray(address: str) -> Executor:
    """An engine on the cluster at `address` (`auto`: the one this machine belongs to). Every worker needs sinkscope and the store on a shared file system;
    a job takes one CPU, and one GPU where the cluster has any.

    Raises:
        StudyError: ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError('--engine ray needs ray; install it with pip install "sinkscope[ray]"') from error

    def run(jobs: Sequence[Job], store: Store, watch: StudyProgress) -> dict[str, str]:
        joined = not ray.is_initialized()
        if joined:
            try:
                ray.init(address=address, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = first_line(error)
                raise StudyError(
                    f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, or use --engine inline"
                ) from error
        try:
            return _spread(ray, jobs, store, watch)
        finally:
            if joined:
                ray.shutdown()

    return run


def _attempt(job: Job, root: str, here: str) -> str | None:
    os.chdir(here)  # models and benchmarks may be named by relative paths
    return attempt(job, Store(Path(root)))


def _spread(ray: Any, jobs: Sequence[Job], store: Store, watch: StudyProgress) -> dict[str, str]:
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_attempt)
    waiting = {job.key: job for job in jobs}
    failures: dict[str, str] = {}
    running: dict[Any, Job] = {}
    while waiting or running:
        for key, job in list(waiting.items()):
            needed = list(job.needs.values())
            if any(
                each.key in waiting or each.key in {other.key for other in running.values()}
                for each in needed
            ):
                continue
            del waiting[key]
            if lost := next((each for each in needed if each.key in failures), None):
                failures[key] = f"{lost} failed"
                watch.failed(job, failures[key])
            elif store.is_done(job):
                watch.finished(job, made=False)
            else:
                watch.started(job)
                running[remote.remote(job, str(store.root), os.getcwd())] = job
        if not running:
            continue
        ready, _ = ray.wait(list(running), num_returns=1)
        job = running.pop(ready[0])
        try:
            outcome = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            outcome = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        if outcome is None:
            watch.finished(job, made=True)
        else:
            failures[job.key] = outcome
            watch.failed(job, outcome)
    return failures
