"""Disks that are too small or cannot be written, and files that may not grow: for one process, as long as it lives."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
READ_ONLY, PRIVATE = 1, 1 << 18 | 1 << 14  # the second for all mounts below


@contextmanager
def disk(at: Path, keep: Path, size: int | None) -> Iterator[None]:
    """An empty file system of `size` bytes at `at`, or one that cannot be written; what lies there at the end is copied to `keep`.

    Raises:
        OSError: this process may not mount any.
    """
    if os.getuid() == 0:
        _check(LIBC.unshare(NEW_MOUNTS))
    else:
        user, group = os.getuid(), os.getgid()
        _check(LIBC.unshare(NEW_MOUNTS | NEW_USER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(LIBC.mount(b"none", b"/", None, PRIVATE, None))
    options = None if size is None else f"size={size}".encode()
    _check(LIBC.mount(b"tmpfs", bytes(at), b"tmpfs", READ_ONLY if size is None else 0, options))
    try:
        yield
    finally:
        shutil.copytree(at, keep)


@contextmanager
def limited(at: Path, keep: Path, size: int) -> Iterator[None]:
    """No file may be larger than `size` bytes; in the end, what lies in `at` is copied to `keep`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        shutil.copytree(at, keep)


def tried(at: Path) -> None:
    """Mount something at `at`, or exit with the number of the error."""
    try:
        with disk(at, at.parent / "tried", 1 << 20):
            pass
    except OSError as error:
        os._exit(error.errno)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
