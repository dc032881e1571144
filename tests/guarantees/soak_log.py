"""What the guarantees are tried with and how often one fails: counted as it happens, written all at once at the end of a run of the tests."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BEGUN = time.monotonic()
COLUMNS = ("guarantee", "what", "count", "failures", "seconds", "seen")


@dataclass
class Tally:
    count: int = 0
    failures: int = 0
    seconds: float = 0.0
    seen: str = ""
    """Something that was measured, in words."""


TALLIES: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)
"""By guarantee and what it was tried with."""


@contextmanager
def attempt(guarantee: str, what: str, count: int = 1) -> Iterator[Tally]:
    """One try of a guarantee, with `count` things at once: it has failed unless the end of the context is reached."""
    tally, begun = TALLIES[guarantee, what], time.monotonic()
    tally.count += count
    tally.failures += 1
    try:
        yield tally
        tally.failures -= 1
    finally:
        tally.seconds += time.monotonic() - begun


def write(path: Path) -> None:
    """A line with the commit, the day and the minutes that this run of the tests took, one with the names of the columns, and one for each tally."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = ""
    with suppress(FileNotFoundError):
        commit = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    lines = [
        f"# commit {commit or 'unknown'}, {datetime.now(UTC):%Y-%m-%d}, {(time.monotonic() - BEGUN) / 60:.0f} minutes",
        "\t".join(COLUMNS),
    ]
    for (guarantee, what), tally in sorted(TALLIES.items()):
        lines.append(
            "\t".join(
                [guarantee, what, str(tally.count), str(tally.failures), f"{tally.seconds:.1f}", tally.seen]
            )
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
