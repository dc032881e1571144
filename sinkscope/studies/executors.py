"""Executors run the jobs of a study: in this process, or on the workers of a Ray cluster."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from sinkscope.errors import OutputError, StudyError, UserError, first_line
from sinkscope.io.interrupts import keep_interrupts
from sinkscope.io.progress import OnProgress
from sinkscope.plugins import describe_bug, find_plugin_line
from sinkscope.studies.jobs import Job, Store
from sinkscope.studies.run_job import run_job

LOGGER = logging.getLogger("sinkscope")
POLL_SECONDS = 1.0
"""Pause before looking again at jobs that other processes are running."""
MAX_RETRIES = 10
"""How often Ray gives a job to another worker when its own is lost; it resumes from its newest checkpoint."""


class StudyProgress(Protocol):
    """Receives what happens to the jobs of a study."""

    def started(self, job: Job) -> OnProgress | None:
        """A job starts; returns the callback for its progress."""

    def finished(self, job: Job, is_new: bool) -> None:
        """The results of a job are in the store: `is_new` of this study, or found there."""

    def failed(self, job: Job, reason: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What became of a job: run now, `found` in the store, `busy` in another process, or failed.

    `is_bug`: it failed by an error that is not the user's.
    """

    status: Literal["new", "found", "busy", "failed"]
    reason: str = ""
    is_bug: bool = False


Executor = Callable[[Sequence[Job], Store, StudyProgress | None], dict[str, Outcome]]
"""Runs all jobs, each after those it needs; returns those that failed, by key."""


def run_locally(jobs: Sequence[Job], store: Store, progress: StudyProgress | None) -> dict[str, Outcome]:
    """Run jobs one after another in this process; a job that another process is running is left to it."""
    waiting = {job.key: job for job in jobs}
    failures: dict[str, Outcome] = {}
    while waiting:
        n_waiting = len(waiting)
        for job in list(waiting.values()):
            if any(needed.key in waiting for needed in job.needs.values()):
                continue
            outcome = _failed_need(job, failures) or _try_job(job, store, progress)
            if outcome.status != "busy":
                del waiting[job.key]
                _report(job, outcome, failures, progress)
        if len(waiting) == n_waiting:
            time.sleep(POLL_SECONDS)
    return failures


def _try_job(job: Job, store: Store, progress: StudyProgress | None) -> Outcome:
    """Run a job unless it is done or another process is running it."""
    if store.is_done(job):
        return Outcome("found")
    with store.lock(job.key, wait=False) as is_locked:
        if not is_locked:
            return Outcome("busy")
        if store.is_done(job):
            return Outcome("found")
        shutil.rmtree(store.path(job), ignore_errors=True)  # incomplete; checkpoints are elsewhere and stay
        try:
            with keep_interrupts():
                run_job(job, store, progress.started(job) if progress else None)
        except OutputError:  # the results of other jobs could not be written either
            raise
        except UserError as error:
            return Outcome("failed", str(error))
        except Exception as error:  # jobs that do not need this one still run
            if os.environ.get("SINKSCOPE_TRACEBACK"):
                LOGGER.exception("%s", job)
            return Outcome("failed", describe_bug(error), is_bug=find_plugin_line(error) is None)
    return Outcome("new")


def _failed_need(job: Job, failures: Mapping[str, Outcome]) -> Outcome | None:
    failed = [needed for needed in job.needs.values() if needed.key in failures]
    return Outcome("failed", f"{failed[0]} failed") if failed else None


def _report(job: Job, outcome: Outcome, failures: dict[str, Outcome], progress: StudyProgress | None) -> None:
    if outcome.status == "failed":
        failures[job.key] = outcome
    if progress and outcome.status == "failed":
        progress.failed(job, outcome.reason)
    elif progress:
        progress.finished(job, is_new=outcome.status == "new")


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

    def run(jobs: Sequence[Job], store: Store, progress: StudyProgress | None) -> dict[str, Outcome]:
        if ray.is_initialized():  # the caller's connection, which stays open
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
    ray: Any, jobs: Sequence[Job], store: Store, progress: StudyProgress | None
) -> dict[str, Outcome]:
    n_gpus = 1 if ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_cpus=1, num_gpus=n_gpus, max_retries=MAX_RETRIES)(_run_remotely)
    waiting = {job.key: job for job in jobs}
    running: dict[Any, Job] = {}
    failures: dict[str, Outcome] = {}
    while waiting or running:
        for job in list(waiting.values()):
            unfinished = waiting.keys() | {other.key for other in running.values()}
            if any(needed.key in unfinished for needed in job.needs.values()):
                continue
            del waiting[job.key]
            outcome = _failed_need(job, failures)
            if outcome or store.is_done(job):
                _report(job, outcome or Outcome("found"), failures, progress)
                continue
            if progress:
                progress.started(job)
            running[remote.remote(job, str(store.root), os.getcwd())] = job
        if running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayError as error:
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
                outcome = Outcome("failed", reason)
            _report(running.pop(ready), outcome, failures, progress)
    return failures


def _run_remotely(job: Job, store: str, working_directory: str) -> Outcome:
    os.chdir(working_directory)  # models and benchmarks may be named by relative paths
    return run_locally([job], Store(Path(store)), None).get(job.key, Outcome("new"))
