"""Location of the on-disk cache."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$SINKSCOPE_CACHE`, else `sinkscope` in the user's cache directory. It can be deleted at any time."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SINKSCOPE_CACHE") or Path(user_cache) / "sinkscope")
