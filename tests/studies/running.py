"""A study carried out by a command, what is told of one, and the tables that it leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from sinkscope.io.progress import OnProgress
from sinkscope.studies.jobs import Job
from sinkscope.studies.progress import StudyProgress

NAMES = ("runs", "scores", "items")


class Told(StudyProgress):
    def __init__(self) -> None:
        self.made: list[str] = []
        self.found: list[str] = []
        self.lost: dict[str, str] = {}

    def started(self, job: Job) -> OnProgress | None:
        return None

    def finished(self, job: Job, made: bool) -> None:
        (self.made if made else self.found).append(job.key)

    def failed(self, job: Job, reason: str) -> None:
        self.lost[job.key] = reason


def command(spec: Path, out: Path, store: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "sinkscope",
        "study",
        str(spec),
        "--out",
        str(out),
        "--store",
        str(store),
        *options,
    ]


def finish(*arguments: Any) -> str:
    """Run a command to its end; what it said."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / f"{name}.parquet").read_bytes() for name in NAMES}
