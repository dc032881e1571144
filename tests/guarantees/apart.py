"""A command in a process of its own, with the time and the most memory that it took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

LAUNCH = """
import atexit, sys, time
from pathlib import Path
place = sys.argv.pop(1)
atexit.register(lambda: Path(place).write_text(Path("/proc/self/status").read_text()))
time.sleep = lambda seconds: None  # the hub's pauses between tries
from sinkscope.cli.main import main
main()
"""


def measured(arguments: list[object], directory: Path, **environment: str) -> tuple[int, str, float, float]:
    """A command in a process of its own: exit code, standard error, seconds, and the most memory it had in GB."""
    began = time.monotonic()
    command = [sys.executable, "-c", LAUNCH, directory / "status", *arguments]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
    )
    memory = next(
        line for line in (directory / "status").read_text().splitlines() if line.startswith("VmHWM:")
    )
    return done.returncode, done.stderr, time.monotonic() - began, int(memory.split()[1]) / 2**20
