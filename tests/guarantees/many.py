"""Functions for many concurrent processes that run the same jobs; each started job is logged."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import create_run
from sinkscope.studies import executors
from sinkscope.studies.jobs import Job, Store
from tests.guarantees.touching import write_new
from tests.studies.running import RecordedProgress


def run_at_barrier(barrier: Barrier, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Wait until all processes have reached the barrier, then call `target`."""
    barrier.wait(60)
    target(*args)


def jobs(count: int) -> list[Job]:
    """Jobs in chains of four, each of which depends on the previous one."""
    created: list[Job] = []
    for number in range(count):
        needs = {"before": created[-1]} if number % 4 else {}
        created.append(Job("perturb", {"number": number}, needs))
    return created


def run_all_jobs(root: Path, log: Path, count: int, number: int, killed_at: int | None) -> None:
    """Run all jobs, each of which writes one file, concurrently with other processes.

    The process kills itself in the middle of the `killed_at`-th job that it starts.
    """
    rng, started = random.Random(number), 0

    def perform(job: Job, store: Store, on_progress: OnProgress | None = None) -> None:
        nonlocal started
        started += 1
        for needed in job.needs.values():
            assert (store.path(needed) / "number").is_file()
        with create_run(store.path(job), job.key, kind="perturb") as staging:
            with (log / "started").open("a") as file:
                file.write(f"{job.key}\n")
            (staging / "number").write_text(str(job.content["number"]))
            time.sleep(rng.uniform(0, 0.01))
            if started == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)

    executors.run_job = perform
    executors.POLL_SECONDS = 0.01
    progress = RecordedProgress()
    failures = executors.run_locally(jobs(count), Store(root), progress)
    (log / f"{number}.json").write_text(
        json.dumps({"made": progress.new, "found": progress.found, "failures": list(failures)})
    )


@contextmanager
def log_started_jobs(log: Path) -> Iterator[None]:
    """Log each job that is started, with the process id, for the lifetime of this process."""
    perform = executors.run_job

    def perform_and_log(job: Job, store: Store, on_progress: OnProgress | None = None) -> None:
        with log.open("a") as file:
            file.write(f"{job.key} {os.getpid()}\n")
        perform(job, store, on_progress)

    executors.run_job = perform_and_log
    yield


def write_all(outputs: list[Path]) -> None:
    for out in outputs:
        write_new(out)
