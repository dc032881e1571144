"""The pieces of work that a study comes down to, each named by a hash of all that decides its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sinkscope.io.run_directory import config_hash

Kind = Literal["pretrain", "unlearn", "alter", "evaluate", "capture", "diverge"]


@dataclass(frozen=True)
class Job:
    """One piece of work. `content` says what to do, `needs` names the jobs whose results it reads, by the part they play.

    `fixed` are hashes of given things that `content` only names: a model's files, a benchmark's records.
    """

    kind: Kind
    content: dict[str, Any]
    needs: dict[str, Job] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    label: str = ""
    """A few words for people. Like the next, it does not take part in the name."""
    batch_size: int = 128
    """Items that an evaluation reads at once."""

    @cached_property
    def key(self) -> str:
        """Its name in a store: equal for equal work, whoever asks for it."""
        needed = {part: job.key for part, job in self.needs.items()}
        return (
            f"{self.kind}-{config_hash(kind=self.kind, content=self.content, needs=needed, fixed=self.fixed)}"
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.label}".strip()


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """All jobs and those they need, each once, needed ones first."""
    found: dict[str, Job] = {}

    def visit(job: Job) -> None:
        for needed in job.needs.values():
            visit(needed)
        found.setdefault(job.key, job)

    for job in jobs:
        visit(job)
    return list(found.values())
