"""Where the full counts of the guarantees are written down."""

from __future__ import annotations

import os


def record(guarantee: str, what: str, count: int, failures: int, seconds: float) -> None:
    """Append a line with these, tabs between them, to the file that SINKSCOPE_SOAK_LOG names; nothing without it."""
    if path := os.environ.get("SINKSCOPE_SOAK_LOG"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{guarantee}\t{what}\t{count}\t{failures}\t{seconds:.1f}\n")
