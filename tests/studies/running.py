"""Run a study by its command, record its progress, read its tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from sinkscope.io.progress import OnProgress
from sinkscope.studies.jobs import Job

NAMES = ("runs", "scores", "items")


class RecordedProgress:
    """A `StudyProgress` that records keys of jobs: `new` ones, those `found` in the store, and the
    reasons of failures."""

    def __init__(self) -> None:
        self.new: list[str] = []
        self.found: list[str] = []
        self.failures: dict[str, str] = {}

    def started(self, job: Job) -> OnProgress | None:
        return None

    def finished(self, job: Job, is_new: bool) -> None:
        (self.new if is_new else self.found).append(job.key)

    def failed(self, job: Job, reason: str) -> None:
        self.failures[job.key] = reason


def command(spec: Path, out: Path, store: Path, *options: str) -> list[str]:
    study = [sys.executable, "-m", "sinkscope", "study", str(spec)]
    return [*study, "--out", str(out), "--store", str(store), *options]


def finish(*arguments: Any) -> str:
    """Run a command to its end; what it wrote to standard error."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / f"{name}.parquet").read_bytes() for name in NAMES}
