"""Executors run the jobs of a study: in this process, or on the workers of a Ray cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sinkscope.errors import OutputError, StudyError, UserError, first_line
from sinkscope.studies.jobs import Job, SilentProgress, StudyProgress
from sinkscope.studies.run_job import run_job
from sinkscope.studies.store import Store

LOGGER = logging.getLogger("sinkscope")
POLL_SECONDS = 1.0
"""Pause before looking again at jobs that other processes are running."""
MAX_RETRIES = 10
"""How often Ray gives a job to another worker when its own is lost; it resumes from its newest checkpoint."""


class Status(Enum):
    DONE = "done"
    BUSY = "busy"
    """Another process is running the job."""
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a job. `is_bug`: it failed by an error that is not the user's."""

    status: Status
    reason: str = ""
    is_bug: bool = False


Executor = Callable[[Sequence[Job], Store, StudyProgress], dict[str, Outcome]]
"""Runs all jobs, each after those it needs; returns those that failed, by key."""


def run_locally(jobs: Sequence[Job], store: Store, progress: StudyProgress) -> dict[str, Outcome]:
    """Run jobs one after another in this process; a job that another process is running is left to it."""
    waiting = {job.key: job for job in jobs}
    failures: dict[str, Outcome] = {}
    while waiting:
        has_advanced = False
        for key, job in list(waiting.items()):
            if any(needed.key in waiting for needed in job.needs.values()):
                continue
            outcome = _failed_need(job, failures) or _try_job(job, store, progress)
            if outcome.status is Status.BUSY:
                continue
            del waiting[key]
            has_advanced = True
            if outcome.status is Status.FAILED:
                failures[key] = outcome
                progress.failed(job, outcome.reason)
        if not has_advanced:
            time.sleep(POLL_SECONDS)
    return failures


def complete_job(job: Job, store: Store) -> Outcome:
    """Run a job unless it is done, or wait for the process that is running it."""
    while (outcome := _try_job(job, store, SilentProgress())).status is Status.BUSY:
        time.sleep(POLL_SECONDS)
    return outcome


def _try_job(job: Job, store: Store, progress: StudyProgress) -> Outcome:
    """Run a job unless it is done or another process is running it."""
    if store.is_done(job):
        progress.finished(job, is_new=False)
        return Outcome(Status.DONE)
    with store.lock_job(job) as is_locked:
        if not is_locked:
            return Outcome(Status.BUSY)
        is_new = not store.is_done(job)
        if is_new:
            try:
                run_job(job, store, progress.started(job))
            except OutputError:  # the results of other jobs could not be written either
                raise
            except UserError as error:
                return Outcome(Status.FAILED, str(error))
            except Exception as error:  # jobs that do not need this one still run
                if os.environ.get("SINKSCOPE_TRACEBACK"):
                    LOGGER.exception("%s", job)
                reason = f"internal error: {type(error).__name__}: {error}"
                return Outcome(Status.FAILED, reason, is_bug=True)
    progress.finished(job, is_new)
    return Outcome(Status.DONE)


def _failed_need(job: Job, failures: Mapping[str, Outcome]) -> Outcome | None:
    for needed in job.needs.values():
        if needed.key in failures:
            return Outcome(Status.FAILED, f"{needed} failed")
    return None


def run_on_ray(address: str) -> Executor:
    """An executor on the Ray cluster at `address` (`auto`: the one that this machine belongs to).

    Every worker needs sinkscope, and the store on a shared file system. A job takes one CPU, and one GPU if
    the cluster has any.

    Raises:
        StudyError: ray is not installed, or (when it runs) there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError('executor ray needs the package; pip install "sinkscope[ray]"') from error

    def run(jobs: Sequence[Job], store: Store, progress: StudyProgress) -> dict[str, Outcome]:
        if ray.is_initialized():
            return _run_on_cluster(ray, jobs, store, progress)
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StudyError(
                f"no Ray cluster answers at {address!r} ({first_line(error)}); "
                "start one with `ray start --head`, or use executor local"
            ) from error
        try:
            return _run_on_cluster(ray, jobs, store, progress)
        finally:
            ray.shutdown()

    return run


def _run_on_cluster(
    ray: Any, jobs: Sequence[Job], store: Store, progress: StudyProgress
) -> dict[str, Outcome]:
    n_gpus = 1 if ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_cpus=1, num_gpus=n_gpus, max_retries=MAX_RETRIES)(_complete_remotely)
    waiting = {job.key: job for job in jobs}
    running: dict[Any, Job] = {}
    failures: dict[str, Outcome] = {}
    while waiting or running:
        for key, job in list(waiting.items()):
            unfinished = waiting.keys() | {other.key for other in running.values()}
            if any(needed.key in unfinished for needed in job.needs.values()):
                continue
            del waiting[key]
            if outcome := _failed_need(job, failures):
                failures[key] = outcome
                progress.failed(job, outcome.reason)
            elif store.is_done(job):
                progress.finished(job, is_new=False)
            else:
                progress.started(job)
                running[remote.remote(job, str(store.root), os.getcwd())] = job
        if not running:
            continue
        (ready,), _ = ray.wait(list(running), num_returns=1)
        job = running.pop(ready)
        try:
            outcome = ray.get(ready)
        except ray.exceptions.RayError as error:
            outcome = Outcome(Status.FAILED, f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")
        if outcome.status is Status.DONE:
            progress.finished(job, is_new=True)
        else:
            failures[job.key] = outcome
            progress.failed(job, outcome.reason)
    return failures


def _complete_remotely(job: Job, store: str, working_directory: str) -> Outcome:
    os.chdir(working_directory)  # models and benchmarks may be named by relative paths
    return complete_job(job, Store(Path(store)))
