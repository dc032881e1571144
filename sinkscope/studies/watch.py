"""What a study tells of its progress."""

from __future__ import annotations

from sinkscope.progress import Report
from sinkscope.studies.jobs import Job


class Watch:
    """What is told of a study's progress; this one says nothing."""

    def started(self, job: Job) -> Report | None:
        """A job is begun; gives what is to be told of its progress."""
        return None

    def finished(self, job: Job, made: bool) -> None:
        """A job's results are there; `made` by this study just now, or found."""

    def failed(self, job: Job, reason: str) -> None:
        """A job cannot be done."""
