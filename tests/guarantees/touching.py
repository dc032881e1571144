"""Writing a directory in the three ways there are, by a process that dies at a chosen touch of the file system; trainings that tell where they go on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sinkscope.io.atomic import fill_directory
from sinkscope.io.run_directory import create_run
from sinkscope.unlearning.checkpoints import Checkpoints, TrainerState

TOUCHING = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
    "fcntl.flock",
)
"""Python's audit events before it asks for what changes files."""


def new(out: Path, text: str = "new") -> None:
    with create_run(out, text, kind="locate") as aside:
        _files(aside, text)


def replacing(out: Path, text: str = "new") -> None:
    with create_run(out, text, kind="locate", overwrite=True) as aside:
        _files(aside, text)


def into(out: Path, text: str = "new") -> None:
    with fill_directory(out) as aside:
        (aside / "first.txt").write_text(text * 1000)
        (aside / "second.txt").write_text(text * 1000)


def _files(directory: Path, text: str) -> None:
    (directory / "deep").mkdir()
    (directory / "deep" / "first.txt").write_text(text * 1000)
    (directory / "second.txt").write_text(text * 1000)


def killed(write: Callable[..., None], out: Path, step: int) -> None:
    """Write, and die at the `step`-th touch; whoever gets to the end has exit code 0."""
    count = 0

    def touched(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in TOUCHING:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(touched)
    write(out)
    os._exit(0)


@contextmanager
def telling_resumed(told: Path) -> Iterator[None]:
    """A training writes the step from which it goes on to `told`, for the rest of this process."""
    resume = Checkpoints.resume

    def resumed(*args: Any) -> TrainerState:
        progress = resume(*args)
        told.write_text(str(progress.step))
        return progress

    Checkpoints.resume = resumed
    yield
