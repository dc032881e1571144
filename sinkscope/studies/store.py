"""Where the results of jobs lie: a directory each, complete or absent, and never made by two processes at once."""

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

    Processes exclude one another by locks of the operating system, which a process that dies lets go of. On a cluster the directory has to lie on a file
    system that all machines share and that knows such locks (NFS 4, Lustre with `flock`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._verified: set[str] = set()
        self._told: set[str] = set()

    def place(self, job: Job) -> Path:
        return self.root / job.key

    def manifest(self, job: Job) -> dict[str, Any] | None:
        """What is known of a finished job (seconds, versions); None if it is not done or its files were changed, of which the log of `sinkscope` tells."""
        place = self.place(job)
        try:
            manifest = read_manifest(place)
            if manifest is None:
                if place.is_dir():
                    raise OutputError(f"{place / MANIFEST} is missing")
                return None
            if job.key not in self._verified:
                verify(place, manifest)
                self._verified.add(job.key)
        except OutputError as error:
            if job.key not in self._told:
                LOGGER.warning("%s: it is made again", str(error).split(";")[0])
            self._told.add(job.key)
            return None
        return manifest

    def is_done(self, job: Job) -> bool:
        """Whether the job's results are there, with unchanged files (looked at once by each process)."""
        return self.manifest(job) is not None

    def whole(self, job: Job) -> Path:
        """The place of a finished job, whose files are looked at now.

        Raises:
            OutputError: one of them is missing or was changed.
        """
        place = self.place(job)
        manifest = read_manifest(place)
        if manifest is None:
            raise OutputError(f"{place / MANIFEST} is missing; remove {place} and run the study again")
        verify(place, manifest)
        return place

    @contextmanager
    def holding(self, job: Job) -> Iterator[bool]:
        """Within the context no other process works on `job`, if True is yielded; False: another one does.

        What lies in the job's place and is not whole is removed; a run's checkpoints stay, for it goes on from them.

        Raises:
            OutputError: the store cannot be written.
        """
        with self.locked(job.key, wait=False) as mine:
            if mine and not self.is_done(job):
                shutil.rmtree(self.place(job), ignore_errors=True)
            yield mine

    @contextmanager
    def locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Within the context this process alone has the lock `name`, if True is yielded; False, without `wait`: another one has it.

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
