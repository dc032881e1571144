"""Writing aside: files grow in a directory beside the place that they are meant for, and go there when they are whole.

The process that writes such a directory holds a lock of the operating system on it. One that is killed leaves the directory behind, without the lock, and
the next process that writes to the same place removes it. On a file system without such locks nothing is removed.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

from sinkscope.errors import OutputError, UserError
from sinkscope.io.cache import cache_directory

LOCK_FILE = "run.json"
"""The file that is locked. In a run's directory it becomes the manifest, so that the lock leaves nothing there."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LIMITED = (errno.EFBIG,)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)
IN_USE = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_REFUSALS = (*_FULL, *_LIMITED, *_FORBIDDEN, *IN_USE)


@contextmanager
def staging_directory(target: Path, place: Path, alone: bool = False) -> Iterator[Path]:
    """A directory in `place` for what is meant for `target`, removed at the end unless it was moved away.

    Raises:
        OutputError: the place cannot be written, the disk is full, or another process is at work on `target` (only with `alone`).
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _turn(place) if alone else nullcontext():
            if alone and is_in_use(target):
                raise in_use_error(target)
            remove_abandoned(target, place)
            directory, mark = _begin(target, place)
    except OSError as error:
        raise write_error(target, error) from error
    with mark:
        try:
            with translate_os_errors(target):
                yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def fill_directory(directory: Path) -> Iterator[Path]:
    """Write files aside and move them into `directory`, over older ones of their names: none is ever there in part. One after another: a process that is killed
    meanwhile leaves new ones beside old ones.

    Raises:
        OutputError: the place cannot be written, or the disk is full.
    """
    with staging_directory(directory, directory) as written:
        yield written
        for path in sorted(written.iterdir()):
            if path.name != LOCK_FILE:
                os.replace(path, directory / path.name)


def remove_abandoned(target: Path, place: Path) -> None:
    """Remove what killed processes left in `place` of what was meant for `target`."""
    for directory in _directories(target, place):
        with suppress(OSError), (directory / LOCK_FILE).open("a") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)


def is_in_use(target: Path) -> bool:
    """Whether a process is at work beside `target` on what is meant for it."""
    for directory in _directories(target, target.parent):
        try:
            with (directory / LOCK_FILE).open("a") as mark:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            continue
    return False


def in_use_error(target: Path) -> OutputError:
    """One line for the user where another process is at work on `target`."""
    return OutputError(
        f"{target} is being made by another process; wait until that has ended, or choose another place"
    )


@contextmanager
def _turn(place: Path) -> Iterator[None]:
    """Within the context no other process that waits for its turn is in it."""
    handle = os.open(place, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _directories(target: Path, place: Path) -> list[Path]:
    return list(place.glob(f".{glob.escape(target.absolute().name)}.*.partial"))


def _begin(target: Path, place: Path) -> tuple[Path, IO[str]]:
    """A new directory and its mark, locked."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=f".{target.absolute().name}.", suffix=".partial", dir=place))
        try:
            mark = (directory / LOCK_FILE).open("w")
        except FileNotFoundError:  # another process took it for abandoned before it was locked
            continue
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        with suppress(OSError):
            fcntl.flock(mark, fcntl.LOCK_EX)
        if (directory / LOCK_FILE).exists():
            return directory, mark
        mark.close()


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Within the context what the operating system says against writing `path` becomes one line for the user."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = _refusal(error)
        if code is None:
            raise
        raise write_error(path, OSError(code, os.strerror(code))) from error


def _refusal(error: BaseException | None) -> int | None:
    """The number of the system's error that this one is or comes of, where it is a refusal; None where it is none."""
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return error.errno
    while (
        error is not None
    ):  # safetensors has a type of its own with the system's words in it, matplotlib fails once more while it closes its file
        for code in (*_FULL, *_LIMITED):
            if os.strerror(code) in str(error):
                return code
        error = error.__cause__ or error.__context__
    return None


def write_error(path: Path, error: OSError) -> OutputError:
    """One line for the user from what the operating system said about writing `path`."""
    other = "choose another place with " + (
        "the variable SINKSCOPE_CACHE" if path.is_relative_to(cache_directory()) else "--out"
    )
    if error.errno in _FULL:
        return OutputError(f"no space left on the disk of {path}; free some or {other}")
    if error.errno in _LIMITED:
        return OutputError(
            f"{path} would have a file larger than is allowed here; raise the limit (ulimit -f) or {other}"
        )
    if error.errno in _FORBIDDEN:
        return OutputError(f"{path} cannot be written ({error.strerror}); {other}")
    if error.errno in IN_USE:
        return OutputError(f"{path} was taken by something else meanwhile; {other}")
    return OutputError(f"{path}: {error.strerror or error}; {other}")
