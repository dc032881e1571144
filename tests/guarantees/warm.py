"""Processes that start fast: forked from a server that has imported everything."""

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
class RunningCommand:
    """A running process; the directory `log` has its standard output `out` and standard error `err`."""

    process: Any
    log: Path

    def kill(self, delay: float, by: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal after `delay` seconds and wait for the end; whether the process was still running."""
        self.process.join(delay)
        alive = self.process.is_alive()
        try:
            if alive:
                os.kill(self.process.pid, by)
        except ProcessLookupError:  # it ended between the two lines
            alive = False
        self.process.join()
        return alive

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        self.process.join()
        return self.process.exitcode

    @property
    def stderr(self) -> str:
        return (self.log / "err").read_text(encoding="utf-8")


def start(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str],
    context: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> RunningCommand:
    """Start a sinkscope command; returns just before it runs.

    Args:
        context: makes a context manager in which the process runs the command.
    """
    log.mkdir(exist_ok=True)
    (log / "started").unlink(missing_ok=True)
    process = CONTEXT.Process(target=_run, args=(arguments, log, environment, context))
    process.start()
    while not (log / "started").exists() and process.is_alive():
        time.sleep(0.002)
    return RunningCommand(process, log)


def _run(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str],
    context: Callable[[], AbstractContextManager[None]],
) -> None:
    from sinkscope.cli import main

    os.environ.update(environment)
    sys.argv = ["sinkscope", *arguments]
    for number, name in ((1, "out"), (2, "err")):
        with (log / name).open("w") as file:
            os.dup2(file.fileno(), number)
    # a shell that runs the tests in the background makes them ignore SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with context():
            (log / "started").touch()
            main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command has ended
