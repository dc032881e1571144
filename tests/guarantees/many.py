"""A process among many that do the same jobs: each job is written down by who makes it."""

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
from sinkscope.studies.jobs import Job
from sinkscope.studies.store import Store
from tests.guarantees.touching import new
from tests.studies.running import RecordedProgress


def at_once(barrier: Barrier, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Wait until the others are there too."""
    barrier.wait(60)
    target(*args)


def jobs(count: int) -> list[Job]:
    """In chains of four, each of which needs the one before it."""
    made: list[Job] = []
    for number in range(count):
        needs = {"before": made[-1]} if number % 4 else {}
        made.append(Job("perturb", {"number": number}, needs))
    return made


def work_through(root: Path, log: Path, count: int, number: int, dies_at: int | None) -> None:
    """Do all jobs that nobody else does, each no more work than a file; the process dies half-way through the one that it begins as its `dies_at`-th."""
    rng, begun = random.Random(number), 0

    def perform(job: Job, store: Store, on_progress: OnProgress | None = None) -> None:
        nonlocal begun
        begun += 1
        for needed in job.needs.values():
            assert (store.path(needed) / "number").is_file()
        with create_run(store.path(job), job.key, kind="perturb") as aside:
            with (log / "begun").open("a") as file:
                file.write(f"{job.key}\n")
            (aside / "number").write_text(str(job.content["number"]))
            time.sleep(rng.uniform(0, 0.01))
            if begun == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

    executors.run_job = perform
    executors.POLL_SECONDS = 0.01
    progress = RecordedProgress()
    failures = executors.run_locally(jobs(count), Store(root), progress)
    (log / f"{number}.json").write_text(
        json.dumps({"made": progress.new, "found": progress.found, "failures": list(failures)})
    )


@contextmanager
def telling_made(log: Path) -> Iterator[None]:
    """Jobs are done as ever; each is written down when it is begun, with the process, for the rest of this one."""
    perform = executors.run_job

    def told(job: Job, store: Store, on_progress: OnProgress | None = None) -> None:
        with log.open("a") as file:
            file.write(f"{job.key} {os.getpid()}\n")
        perform(job, store, on_progress)

    executors.run_job = told
    yield


def write_again_and_again(places: list[Path]) -> None:
    for place in places:
        new(place)
