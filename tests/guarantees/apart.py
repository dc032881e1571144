"""Run a command in a separate process and measure its duration and peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

LAUNCH = """
import atexit, sys, time
from pathlib import Path
status_file = sys.argv.pop(1)
atexit.register(lambda: Path(status_file).write_text(Path("/proc/self/status").read_text()))
time.sleep = lambda seconds: None  # skip the pauses between requests to the hub
from sinkscope.cli.main import main
main()
"""


def run_measured(
    arguments: list[object], directory: Path, **environment: str
) -> tuple[int, str, float, float]:
    """Run a command in a separate process; returns exit code, stderr, seconds and peak memory in GB."""
    started = time.monotonic()
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
    return done.returncode, done.stderr, time.monotonic() - started, int(memory.split()[1]) / 2**20
