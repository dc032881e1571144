"""Where what can be computed again lies."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Where what can be computed again is kept between runs: `$SINKSCOPE_CACHE`, else `sinkscope` in the user's cache. It can be removed at any time."""
    return Path(
        os.environ.get("SINKSCOPE_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sinkscope"
    )
