"""Atomic writes: files are written to a locked staging directory, which is then renamed.

A staging directory `.NAME.TOKEN.partial` has a lock file `.NAME.TOKEN.lock` in the same directory. The
operating system releases the lock when the process dies, so the next process that writes the same target
removes both. On a file system without locks files are written without them, and nothing is removed.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sinkscope.errors import OutputError, UserError

TOKEN_BYTES = 8
RETRY_SECONDS = 0.1
FULL = (errno.ENOSPC, errno.EDQUOT)
_LIMITED = (errno.EFBIG,)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
IN_USE = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_TRANSLATED = (*FULL, *_LIMITED, *_FORBIDDEN, *IN_USE)


@contextmanager
def staging_directory(target: Path, parent: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """A directory in `parent` for the files of `target`, removed at the end unless it was renamed.

    OutputError if `parent` cannot be written, the disk is full, or (with `exclusive`) another process has an
    exclusive staging directory for `target`.
    """
    locks: list[FileLock] = []
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if exclusive:
            with _ignore_missing_locks():
                locks.append(_lock_exclusively(target, parent))
        remove_abandoned(target, parent)
        directory = _create_staging(target, parent, locks)
    except OSError as error:
        _remove_locks(locks)
        raise write_error(target, error) from error
    try:
        with translate_os_errors(target):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        _remove_locks(locks)


@contextmanager
def fill_directory(directory: Path) -> Iterator[Path]:
    """Write files to a staging directory and move them into `directory`, over files of the same names.

    Each file is complete or absent, but a process that is killed may leave new files alongside old ones.
    OutputError if the directory cannot be written, or the disk is full.
    """
    with staging_directory(directory, directory) as staging:
        yield staging
        for path in sorted(staging.iterdir()):
            os.replace(path, directory / path.name)


def remove_abandoned(target: Path, parent: Path) -> None:
    """Remove what killed processes left in `parent` while they wrote `target`."""
    pattern = f".{glob.escape(target.absolute().name)}.{'?' * 2 * TOKEN_BYTES}.*"
    prefix_length = len(f".{target.absolute().name}.") + 2 * TOKEN_BYTES
    for stem in {parent / path.name[:prefix_length] for path in parent.glob(pattern)}:
        with suppress(OSError):
            lock = _try_lock(Path(f"{stem}.lock"))
            if lock is not None:
                shutil.rmtree(f"{stem}.replaced.partial", ignore_errors=True)
                shutil.rmtree(f"{stem}.partial", ignore_errors=True)
                _remove_locks([lock])


def is_in_use(target: Path) -> bool:
    """Whether a process has an exclusive staging directory for `target`; False where there are no locks."""
    path = _exclusive_lock_file(target, target.parent)
    try:
        lock = _try_lock(path) if path.exists() else None
    except OSError as error:
        return error.errno not in _NO_LOCKS and path.exists()
    if lock is not None:
        _remove_locks([lock])
        return False
    return path.exists()


def in_use_error(target: Path) -> OutputError:
    """One line for the user where another process is writing `target`."""
    return OutputError(
        f"{target} is being written by another process; wait until that has ended, or choose another"
    )


@contextmanager
def hold_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock on a file, which is created and stays; False if another process has it and not `wait`.

    On a file system without locks True is yielded. OSError if the file cannot be created.
    """
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        with _ignore_missing_locks():
            lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _exclusive_lock_file(target: Path, parent: Path) -> Path:
    return parent / f".{target.absolute().name}.lock"


def _lock_exclusively(target: Path, parent: Path) -> FileLock:
    """The exclusive lock for `target`; tried twice, as `is_in_use` takes it for a moment."""
    path = _exclusive_lock_file(target, parent)
    lock = _try_lock(path)
    if lock is None:
        time.sleep(RETRY_SECONDS)
        lock = _try_lock(path)
    if lock is None:
        raise in_use_error(target)
    return lock


def _try_lock(path: Path) -> FileLock | None:
    """The lock on a file, which is created; None if another process has it, or removed the file meanwhile.

    OSError if the file cannot be created, or the file system has no locks; then no file is left.
    """
    existed = path.exists()
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        if error.errno in _NO_LOCKS and not existed:
            with suppress(OSError):
                os.unlink(path)
        raise
    return lock


@contextmanager
def _ignore_missing_locks() -> Iterator[None]:
    """Within the context, the error of a file system without locks ends the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _remove_locks(locks: list[FileLock]) -> None:
    """Remove lock files while the locks are held, so that nobody can hold a lock on a file without a name."""
    for lock in locks:
        with suppress(OSError):
            os.unlink(lock.lock_file)
        with suppress(OSError):
            lock.release()
        if os.name == "nt":  # an open file cannot be removed there
            with suppress(OSError):
                os.unlink(lock.lock_file)


def _create_staging(target: Path, parent: Path, locks: list[FileLock]) -> Path:
    """A new directory; its lock, if there are any, is added to `locks` before the directory exists."""
    while True:
        stem = parent / f".{target.absolute().name}.{secrets.token_hex(TOKEN_BYTES)}"
        with _ignore_missing_locks():
            lock = _try_lock(Path(f"{stem}.lock"))
            if lock is None:  # taken for abandoned before it was locked
                continue
            locks.append(lock)
        directory = Path(f"{stem}.partial")
        directory.mkdir(mode=0o700)
        return directory


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Within the context, the operating system's errors on writing `path` become one line for the user."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = _os_error_code(error)
        if code is None:
            raise
        raise write_error(path, OSError(code, os.strerror(code))) from error


def _os_error_code(error: BaseException | None) -> int | None:
    """The errno of an error, or of its causes, that the user can do something about."""
    if isinstance(error, OSError) and error.errno in _TRANSLATED:
        return error.errno
    while error is not None:
        # safetensors has a type of its own, and matplotlib fails again while it closes its file
        for code in (*FULL, *_LIMITED):
            if os.strerror(code) in str(error):
                return code
        error = error.__cause__ or error.__context__
    return None


def cache_directory() -> Path:
    """`$SINKSCOPE_CACHE`, else `sinkscope` in the user's cache directory. It can be deleted at any time."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SINKSCOPE_CACHE") or Path(user_cache) / "sinkscope")


def write_error(path: Path, error: OSError) -> OutputError:
    """One line for the user from the operating system's error on writing `path`."""
    in_cache = path.is_relative_to(cache_directory())
    hint = "choose another directory" + (" with the variable SINKSCOPE_CACHE" if in_cache else "")
    if error.errno in FULL:
        return OutputError(f"no space left on the disk of {path}; free some or {hint}")
    if error.errno in _LIMITED:
        return OutputError(
            f"{path} would exceed the limit on file sizes; raise the limit (ulimit -f) or {hint}"
        )
    if error.errno in _FORBIDDEN:
        return OutputError(f"{path} cannot be written ({error.strerror}); {hint}")
    if error.errno in IN_USE:
        return OutputError(f"{path} was created by another process meanwhile; {hint}")
    return OutputError(f"{path}: {error.strerror or error}; {hint}")
