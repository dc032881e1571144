"""Where the soak tests leave their counts: a line each in the file that SINKSCOPE_SOAK_LOG names."""

from __future__ import annotations

import os


def record(guarantee: str, what: str, count: int, failures: int, seconds: float) -> None:
    """Append `guarantee<TAB>what<TAB>count<TAB>failures<TAB>seconds`; nothing where no file is named."""
    if path := os.environ.get("SINKSCOPE_SOAK_LOG"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{guarantee}\t{what}\t{count}\t{failures}\t{seconds:.1f}\n")
