"""Small or read-only file systems, and limits on file size, for the lifetime of one process."""

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
READ_ONLY, PRIVATE = 1, 1 << 18 | 1 << 14  # MS_RDONLY; MS_PRIVATE | MS_REC


@contextmanager
def disk(mount_point: Path, copy_to: Path, size: int | None) -> Iterator[None]:
    """Mount an empty file system of `size` bytes, or a read-only one; copy its files to `copy_to` at the end.

    Raises:
        OSError: this process has no permission to mount file systems.
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
    _check(LIBC.mount(b"tmpfs", bytes(mount_point), b"tmpfs", READ_ONLY if size is None else 0, options))
    try:
        yield
    finally:
        shutil.copytree(mount_point, copy_to)


@contextmanager
def file_size_limit(directory: Path, copy_to: Path, size: int) -> Iterator[None]:
    """Limit files to `size` bytes, and copy the files of `directory` to `copy_to` at the end."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        shutil.copytree(directory, copy_to)


def try_mount(mount_point: Path) -> None:
    """Mount a file system; exit with the errno if that fails."""
    try:
        with disk(mount_point, mount_point.parent / "copy", 1 << 20):
            pass
    except OSError as error:
        os._exit(error.errno)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
