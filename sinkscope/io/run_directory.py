"""A directory of results: complete or absent, named by a hash of what made it, with a checksum for every file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sinkscope.errors import OutputError, UserError, first_line
from sinkscope.io.atomic import IN_USE, LOCK_FILE, staging_directory
from sinkscope.io.readers import MAX_TEXT_BYTES, check_file

SCHEMA = 1
MANIFEST = LOCK_FILE


def config_hash(**parts: Any) -> str:
    """A run's name: a hash of everything that decides its results, and of the schema version."""
    content = json.dumps({"schema": SCHEMA, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a complete run, or None if `directory` holds none.

    Raises:
        OutputError: the manifest is there but is not one.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    check_file(path, "manifest", OutputError, f"remove {directory} and run again", MAX_TEXT_BYTES)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        typed = all(
            isinstance(each, str) for each in (manifest["identity"], manifest.get("kind", ""))
        ) and isinstance(manifest.get("versions", {}), dict)
        if files.pop(MANIFEST, None) not in (None, _checksum(manifest)) or not typed:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path} is damaged; remove {directory} and run again") from error
    return manifest | {"files": files}


@contextmanager
def wrap_read_errors(directory: Path) -> Iterator[None]:
    """Within the context what goes wrong with whole results that say something else than they should becomes one line for the user.

    Raises:
        OutputError: they cannot be understood.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # files from anywhere, or of another version
        raise OutputError(
            f"{directory} holds results that cannot be read ({first_line(error)}); make them again with this version of sinkscope"
        ) from error


def _checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of all that a manifest says, but for its own entry among the files."""
    files = {name: digest for name, digest in manifest["files"].items() if name != MANIFEST}
    return hashlib.sha256(json.dumps(manifest | {"files": files}, sort_keys=True).encode()).hexdigest()


def is_complete(directory: Path, name: str) -> bool:
    """Whether `directory` holds this very run, complete and with unchanged files.

    Raises:
        OutputError: it holds something else, a file was changed, or no run can be put there.
    """
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"output {directory} is a file; give a directory")
    manifest = read_manifest(directory)
    if manifest is None:
        if directory.exists() and any(directory.iterdir()):
            raise OutputError(
                f"output directory {directory} is not empty and holds no run of sinkscope (no {MANIFEST}); choose another with --out"
            )
        check_output_path(directory)
        return False
    if manifest["identity"] != name:
        raise OutputError(
            f"output directory {directory} holds another run's results; choose another with --out"
        )
    verify(directory, manifest)
    return True


def check_output_path(directory: Path) -> None:
    """Whether a directory that was written aside can take this one's name.

    Raises:
        OutputError: it is a link that leads nowhere, a mount point or the current directory, which cannot be replaced.
    """
    if not directory.exists():
        if directory.is_symlink():
            raise OutputError(f"output {directory} is a link that leads nowhere; choose another with --out")
    elif os.path.ismount(directory):
        raise OutputError(
            f"output {directory} is a mount point, whose place no other directory can take; choose a directory in it with --out"
        )
    elif os.path.samefile(directory, os.curdir):
        raise OutputError(
            f"output {directory} is the current directory, whose place no other can take; choose a directory in it with --out"
        )


def verify(directory: Path, manifest: dict[str, Any]) -> None:
    """Compare every file with its checksum.

    Raises:
        OutputError: a file is missing or differs; it is named.
    """
    for name, digest in manifest["files"].items():
        path = directory / name
        if not path.is_file() or sha256(path) != digest:
            raise OutputError(
                f"{path} is missing or was changed since it was written; remove {directory} and run again"
            )


@contextmanager
def create_run(
    directory: Path, name: str, replaces: bool = False, alone: bool = False, /, **about: Any
) -> Iterator[Path]:
    """Write a run aside and put it in place at the end: `directory` is complete or absent, whatever happens in between.

    Yields a temporary directory beside `directory`. On a normal exit its files are checksummed into `run.json` together
    with `about`, versions and seconds, and it takes `directory`'s name; with `replaces` from what is there, which is removed once that is done. Where another
    process has meanwhile written the same run, that one stays. A link to a directory stays one.

    Args:
        alone: refuse where another process is at work on the same place.

    Raises:
        OutputError: the place cannot be written, the disk is full, something else was written there meanwhile, or another process is at work on it (only
            with `alone`).
    """
    started = time.time()
    directory = directory.resolve() if directory.is_symlink() else directory
    with staging_directory(directory, directory.parent, alone) as written:
        yield written
        files = checksums(written)
        manifest = {
            "identity": name,
            "schema": SCHEMA,
            **about,
            "versions": versions(),
            "seconds": round(time.time() - started, 1),
            "files": files,
        }
        files[MANIFEST] = _checksum(json.loads(json.dumps(manifest)))  # as it will be read
        (written / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        written.chmod(0o755)
        old = written.with_suffix(".replaced.partial")
        try:
            if directory.is_dir() and replaces:
                os.replace(directory, old)
            elif directory.is_dir():
                directory.rmdir()
            try:
                os.replace(written, directory)
            except BaseException:
                if old.is_dir():
                    os.replace(old, directory)
                raise
        except OSError as error:
            if error.errno not in IN_USE or not is_complete(directory, name):
                raise
        shutil.rmtree(old, ignore_errors=True)


def checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file in a directory but its own manifest, by path."""
    return {
        path.relative_to(directory).as_posix(): sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST
    }


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of what decides numbers."""
    found = {"python": platform.python_version()}
    for package in ("sinkscope", "torch", "transformers", "transformer-lens"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
