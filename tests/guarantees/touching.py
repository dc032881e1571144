"""The three ways to write a directory, in a process that is killed at a given file-system operation.

Also a log of the step at which a training resumes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sinkscope.io.atomic import fill_directory
from sinkscope.io.run_directory import create_run
from sinkscope.unlearning.checkpoints import Checkpoint, Checkpoints

FILE_SYSTEM_EVENTS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
    "fcntl.flock",
)
"""Python's audit events before operations that change files."""


def write_new(out: Path, text: str = "new") -> None:
    with create_run(out, text, kind="locate") as staging:
        _write_files(staging, text)


def write_replacing(out: Path, text: str = "new") -> None:
    with create_run(out, text, kind="locate", overwrite=True) as staging:
        _write_files(staging, text)


def write_into(out: Path, text: str = "new") -> None:
    with fill_directory(out) as staging:
        (staging / "first.txt").write_text(text * 1000)
        (staging / "second.txt").write_text(text * 1000)


def _write_files(directory: Path, text: str) -> None:
    (directory / "deep").mkdir()
    (directory / "deep" / "first.txt").write_text(text * 1000)
    (directory / "second.txt").write_text(text * 1000)


def run_killed(write: Callable[..., None], out: Path, step: int) -> None:
    """Write, and be killed at the `step`-th operation; exit with code 0 if there are fewer."""
    count = 0

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in FILE_SYSTEM_EVENTS:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    write(out)
    os._exit(0)


@contextmanager
def log_resumed_step(step_file: Path) -> Iterator[None]:
    """Write the step at which a training resumes to `step_file`, for the lifetime of this process."""
    load = Checkpoints.load

    def load_and_log(self: Checkpoints) -> Checkpoint | None:
        checkpoint = load(self)
        step_file.write_text(str(checkpoint.step if checkpoint else 0))
        return checkpoint

    Checkpoints.load = load_and_log  # type: ignore[method-assign]
    yield
