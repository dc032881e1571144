"""Processes that start warm: forked from a server in which everything is imported, so that many can be started and killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.guarantees.imported"])


@dataclass
class Started:
    """A process at work. `log` is a directory with what it has said so far: `out`, `err`."""

    process: Any
    log: Path

    def kill(self, after: float, by: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal `after` seconds from now, and wait for the end; whether it came in time."""
        self.process.join(after)
        alive = self.process.is_alive()
        if alive:
            os.kill(self.process.pid, by)
        self.process.join()
        return alive

    def end(self) -> int:
        """Wait for the end; the exit code."""
        self.process.join()
        return self.process.exitcode

    @property
    def said(self) -> str:
        return (self.log / "err").read_text(encoding="utf-8")


def start(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str],
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Started:
    """Start a command of sinkscope; returns once it is about to run.

    Args:
        within: gives a context that the process enters before the command, and leaves after it.
    """
    log.mkdir(exist_ok=True)
    (log / "begun").unlink(missing_ok=True)
    process = CONTEXT.Process(target=_run, args=(arguments, log, environment, within))
    process.start()
    while not (log / "begun").exists() and process.is_alive():
        time.sleep(0.002)
    return Started(process, log)


def _run(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str],
    within: Callable[[], AbstractContextManager[None]],
) -> None:
    from sinkscope.cli import main

    os.environ.update(environment)
    sys.argv = ["sinkscope", *arguments]
    for number, name in ((1, "out"), (2, "err")):
        with (log / name).open("w") as file:
            os.dup2(file.fileno(), number)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell that started the tests in the background has made them ignore it
    try:
        with within():
            (log / "begun").touch()
            main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is to be seen of the command has been
