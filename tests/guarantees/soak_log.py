"""Counts the attempts and failures of each guarantee, and writes them at the end of the test session."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

STARTED = time.monotonic()
COLUMNS = ("guarantee", "what", "count", "failures", "seconds", "seen")


@dataclass
class Tally:
    count: int = 0
    failures: int = 0
    seconds: float = 0.0
    seen: str = ""
    """A measurement, as text."""


TALLIES: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)
"""(guarantee, what it was tested with) -> its counts."""


@contextmanager
def attempt(guarantee: str, what: str, count: int = 1) -> Iterator[Tally]:
    """Count `count` attempts at a guarantee; they count as one failure unless the context ends normally."""
    tally, started = TALLIES[guarantee, what], time.monotonic()
    tally.count += count
    tally.failures += 1
    try:
        yield tally
        tally.failures -= 1
    finally:
        tally.seconds += time.monotonic() - started


def write(path: Path) -> None:
    """Write a line with commit, date and duration, a line with the names of columns, and a line per tally."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = ""
    with suppress(FileNotFoundError):
        commit = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    minutes = (time.monotonic() - STARTED) / 60
    lines = [
        f"# commit {commit or 'unknown'}, {datetime.now(UTC):%Y-%m-%d}, {minutes:.0f} minutes",
        "\t".join(COLUMNS),
    ]
    for (guarantee, what), tally in sorted(TALLIES.items()):
        lines.append(
            "\t".join(
                [guarantee, what, str(tally.count), str(tally.failures), f"{tally.seconds:.1f}", tally.seen]
            )
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
