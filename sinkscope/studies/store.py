"""The store of a study: one directory per finished job, complete or absent, made by one process at a time."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sinkscope.errors import OutputError
from sinkscope.io.atomic import hold_lock, write_error
from sinkscope.io.run_directory import MANIFEST, read_manifest, verify
from sinkscope.studies.jobs import Job

LOGGER = logging.getLogger("sinkscope")


class Store:
    """A directory with a directory for every finished job, named by its key.

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
        """Manifest of a finished job; None if it is not finished or its files were changed (a warning)."""
        path = self.path(job)
        try:
            manifest = read_manifest(path)
            if manifest is None:
                if path.is_dir():
                    raise OutputError(f"{path / MANIFEST} is missing")
                return None
            if job.key not in self._verified:
                verify(path, manifest)
                self._verified.add(job.key)
        except OutputError as error:
            if job.key not in self._reported:
                LOGGER.warning("%s: it is made again", str(error).split(";")[0])
            self._reported.add(job.key)
            return None
        return manifest

    def is_done(self, job: Job) -> bool:
        """Whether the job is finished and its files are unchanged (verified once per process)."""
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
    def lock_job(self, job: Job) -> Iterator[bool]:
        """Within the context, no other process works on `job` if True is yielded; if False, another one does.

        An incomplete directory of the job is removed; the checkpoints of its run stay, from which it resumes.

        Raises:
            OutputError: the store cannot be written.
        """
        with self.lock(job.key, wait=False) as is_locked:
            if is_locked and not self.is_done(job):
                shutil.rmtree(self.path(job), ignore_errors=True)
            yield is_locked

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
