"""Runs, the jobs that they consist of, and the store in which each finished job is a directory.

Nothing imported here loads torch, so that the command line starts quickly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sinkscope.errors import OutputError
from sinkscope.io.atomic import hold_lock, write_error
from sinkscope.io.run_directory import MANIFEST, config_hash, read_manifest, verify

if TYPE_CHECKING:
    from sinkscope.evaluation.evaluated_model import Role
    from sinkscope.unlearning.recipe import TriggerConfig

LOGGER = logging.getLogger("sinkscope")
Kind = Literal["pretrain", "unlearn", "perturb", "evaluate", "capture", "diverge"]


@dataclass(frozen=True)
class Job:
    """One unit of work: what to do (`content`), and the jobs whose results it reads (`needs`, by their part).

    `fixed` are hashes of given inputs that `content` only names: the files of a model, the records of a
    benchmark. `label` (for people) and `batch_size` (of evaluations) are not part of the key.
    """

    kind: Kind
    content: dict[str, Any]
    needs: dict[str, Job] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    label: str = ""
    batch_size: int = 128

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
    """One model of a study and what is measured on it; `labels` are its values on the axes of its grid.

    `model` is the job that makes it (None: a given model, by `name`). `poisoned_by` is the job that poisoned
    the training set of the model, or of the model that it was continued from.
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

    @property
    def label(self) -> str:
        return " ".join([self.grid, *map(str, self.labels.values()), f"seed {self.seed}"])

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


class Store:
    """A directory with a directory for every finished job, complete or absent, named by its key.

    Processes exclude one another by file locks, which the operating system releases when a process dies. On
    a cluster the store must be on a file system that all machines share and that supports them (NFS 4,
    Lustre with `flock`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._verified: set[str] = set()
        self._reported: set[str] = set()

    def path(self, job: Job) -> Path:
        return self.root / job.key

    def manifest(self, job: Job) -> dict[str, Any] | None:
        """Manifest of a finished job; None if it is not finished or its files were changed (a warning).

        Files are verified once per store object.
        """
        if not self.path(job).is_dir():
            return None
        try:
            if job.key not in self._verified:
                self.verified_path(job)
                self._verified.add(job.key)
            return read_manifest(self.path(job))
        except OutputError as error:
            if job.key not in self._reported:
                LOGGER.warning("%s: it is made again", str(error).split(";")[0])
            self._reported.add(job.key)
            return None

    def is_done(self, job: Job) -> bool:
        return self.manifest(job) is not None

    def verified_path(self, job: Job) -> Path:
        """Directory of a finished job, whose files are verified now.

        Raises:
            OutputError: one of them is missing or was changed.
        """
        path = self.path(job)
        manifest = read_manifest(path)
        if manifest is None:
            raise OutputError(f"{path / MANIFEST} is missing; remove {path} and run the study again")
        verify(path, manifest)
        return path

    @contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Within the context, this process has the lock `name` if True is yielded, else another one has it.

        Raises:
            OutputError: the store cannot be written.
        """
        path = self.root / ".locks" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise write_error(self.root, error) from error
        with hold_lock(path, wait=wait) as is_held:
            yield is_held
