"""Who does the jobs: this process one after the other, or the workers of a Ray cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence

from sinkscope.errors import OutputError, UserError
from sinkscope.studies.jobs import Job
from sinkscope.studies.progress import StudyProgress
from sinkscope.studies.run_job import run_job
from sinkscope.studies.store import Store

LOGGER = logging.getLogger("sinkscope")
POLL = 1.0
"""Seconds between looks at jobs that other processes are doing."""


Executor = Callable[[Sequence[Job], Store, StudyProgress], dict[str, str]]
"""Does all jobs (each after those it needs) and gives those that cannot be done, with the reason, by key."""


def run_locally(jobs: Sequence[Job], store: Store, watch: StudyProgress) -> dict[str, str]:
    """One after the other in this process. A job that another process is at is left to it."""
    waiting = {job.key: job for job in jobs}
    failures: dict[str, str] = {}
    while waiting:
        moved = False
        for key, job in list(waiting.items()):
            if any(needed.key in waiting for needed in job.needs.values()):
                continue
            if lost := next((needed for needed in job.needs.values() if needed.key in failures), None):
                outcome: str | None = f"{lost} failed"
            else:
                outcome = _tried(job, store, watch)
                if outcome == BUSY:
                    continue
            del waiting[key]
            moved = True
            if outcome is not None:
                failures[key] = outcome
                watch.failed(job, outcome)
        if not moved:
            time.sleep(POLL)
    return failures


BUSY = "another process is at it"
MISTAKE = "internal error:"
"""How the reason begins where a job failed by no fault of the user's."""


def _tried(job: Job, store: Store, watch: StudyProgress) -> str | None:
    """Do a job if need be; what is wrong with it, or None."""
    if store.is_done(job):
        watch.finished(job, made=False)
        return None
    with store.holding(job) as mine:
        if not mine:
            return BUSY
        made = not store.is_done(job)
        if made:
            try:
                run_job(job, store, watch.started(job))
            except OutputError:  # no other job could be kept either
                raise
            except UserError as error:
                return str(error)
            except Exception as error:  # a mistake of our own, or memory that ran out: the jobs that do without this one are done all the same
                if os.environ.get("SINKSCOPE_TRACEBACK"):
                    LOGGER.exception("%s", job)
                return f"{MISTAKE} {type(error).__name__}: {error}"
    watch.finished(job, made)
    return None


def attempt(job: Job, store: Store) -> str | None:
    """Do a job unless it is done, waiting for another process that is at it; what is wrong with it, or None."""
    while (outcome := _tried(job, store, StudyProgress())) == BUSY:
        time.sleep(POLL)
    return outcome
