"""Runs and the jobs that they consist of; each job is named by a hash of everything that decides its results.

Nothing imported here loads torch, so that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import config_hash

if TYPE_CHECKING:
    from sinkscope.evaluation.evaluated_model import Role
    from sinkscope.unlearning.recipe import TriggerConfig

Kind = Literal["pretrain", "unlearn", "perturb", "evaluate", "capture", "diverge"]


@dataclass(frozen=True)
class Job:
    """One unit of work. `content` says what to do; `needs` are the jobs whose results it reads, by their
    part in it.

    `fixed` are hashes of given inputs that `content` only names: the files of a model, the records of a
    benchmark.
    """

    kind: Kind
    content: dict[str, Any]
    needs: dict[str, Job] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    label: str = ""
    """Description for people. Like `batch_size` it is not part of the key."""
    batch_size: int = 128
    """Batch size of evaluations."""

    @cached_property
    def key(self) -> str:
        """Name of the job in a store: equal for equal work, in any grid or study."""
        needs = {part: job.key for part, job in self.needs.items()}
        digest = config_hash(self.kind, content=self.content, needs=needs, fixed=self.fixed)
        return f"{self.kind}-{digest}"

    def __str__(self) -> str:
        return f"{self.kind} {self.label}".strip()


@dataclass(frozen=True)
class Run:
    """One model of a study and what is measured on it.

    `labels` are its values on the axes of its grid. `model` is the job that makes it (None: a given model,
    by `name`). `poisoned_by` is the job that poisoned the training set of the model, or of the model that
    it was continued from.
    """

    grid: str
    name: str
    seed: int
    role: Role
    benchmark: str | None
    trigger: TriggerConfig
    labels: dict[str, Any] = field(default_factory=dict)
    model: Job | None = None
    poisoned_by: Job | None = None
    evaluations: dict[str, Job] = field(default_factory=dict)
    captures: dict[str, Job] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        return [*([self.model] if self.model else []), *self.evaluations.values(), *self.captures.values()]


def sort_jobs(jobs: Iterable[Job]) -> list[Job]:
    """All jobs and those they need, each once, needed ones first."""
    ordered: dict[str, Job] = {}

    def visit(job: Job) -> None:
        for needed in job.needs.values():
            visit(needed)
        ordered.setdefault(job.key, job)

    for job in jobs:
        visit(job)
    return list(ordered.values())


class StudyProgress(Protocol):
    """Receives what happens to the jobs of a study."""

    def started(self, job: Job) -> OnProgress | None:
        """A job starts; returns the callback for its progress."""

    def finished(self, job: Job, is_new: bool) -> None:
        """The results of a job are in the store: `is_new` of this study, or found there."""

    def failed(self, job: Job, reason: str) -> None:
        """A job failed."""


class SilentProgress:
    """A `StudyProgress` that reports nothing."""

    def started(self, job: Job) -> OnProgress | None:
        return None

    def finished(self, job: Job, is_new: bool) -> None:
        pass

    def failed(self, job: Job, reason: str) -> None:
        pass
