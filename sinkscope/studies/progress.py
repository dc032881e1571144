"""What is told of a study while it runs. Nothing is imported here that loads torch, so that the command line stays quick."""

from __future__ import annotations

from sinkscope.io.progress import OnProgress
from sinkscope.studies.jobs import Job


class StudyProgress:
    """What is told of a study's progress; this one says nothing."""

    def started(self, job: Job) -> OnProgress | None:
        """A job is begun; gives what is to be told of its progress."""
        return None

    def finished(self, job: Job, made: bool) -> None:
        """A job's results are there; `made` by this study just now, or found."""

    def failed(self, job: Job, reason: str) -> None:
        """A job cannot be done."""
