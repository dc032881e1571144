"""Run directories: complete or absent, identified by a configuration hash, with checksums of all files.

`create_or_load` is what most callers need:

    def build(staging: Path) -> None:
        table.to_parquet(staging / "scores.parquet", index=False)

    def load(directory: Path) -> pd.DataFrame:
        return pd.read_parquet(directory / "scores.parquet")

    config = {"model": model.fingerprint(), "epsilon": 0.3}
    scores = create_or_load(out, "evaluate", config, build, load, metadata={"model": model.name})

The manifest `run.json` is written last. It holds the run id (`identity`), the kind of result, the version of
its schema (see `sinkscope.schema`), the metadata, the versions of packages, the duration and the checksums.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from sinkscope.errors import OutputError, UserError, first_line
from sinkscope.io.atomic import IN_USE, staging_directory
from sinkscope.io.readers import MAX_TEXT_BYTES, check_file
from sinkscope.schema import KINDS, version_of

MANIFEST = "run.json"
Loaded = TypeVar("Loaded")


def config_hash(kind: str, **config: Any) -> str:
    """Hash of everything that determines a result of `kind`, and of the version of its schema."""
    content = json.dumps({"kind": kind, "schema": version_of(kind), **config}, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def create_or_load(
    directory: Path,
    kind: str,
    config: Mapping[str, Any],
    build: Callable[[Path], Mapping[str, Any] | None],
    load: Callable[[Path], Loaded],
    *,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Loaded:  # seven: the steps that all callers share
    """Load the run of this configuration from `directory`; build it there before, if it is not complete.

    Args:
        kind: one of `schema.KINDS`.
        config: everything that determines the files, as JSON values; other values are converted by `str`.
        build: writes the files to the staging directory that it is given; may return further metadata.
        load: reads the result from the complete directory.
        metadata: what the manifest says about the run.
        overwrite: replace a complete run of the same kind that has another configuration or schema version.

    Raises:
        OutputError: `directory` holds something else or a damaged run, or cannot be written.
    """
    run_id = config_hash(kind, **config)
    if not is_complete(directory, run_id, replaced_kind=kind if overwrite else None):
        details = dict(metadata or {})
        with create_run(directory, run_id, kind, details, overwrite=overwrite) as staging:
            details |= build(staging) or {}
    return load(directory)


def read_manifest(directory: Path, *, check_version: bool = True) -> dict[str, Any] | None:
    """The manifest of a complete run, or None if `directory` holds none.

    OutputError if it is damaged, or (with `check_version`) of another schema version.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    check_file(path, "manifest", OutputError, f"remove {directory} and run again", MAX_TEXT_BYTES)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        types = {"identity": str, "kind": str, "schema": int, "versions": dict}
        values = {"versions": {}} | manifest
        is_typed = all(isinstance(values[key], expected) for key, expected in types.items())
        if files.pop(MANIFEST, None) not in (None, _checksum(manifest)) or not is_typed:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path} is damaged; remove {directory} and run again") from error
    kind = KINDS.get(manifest["kind"])
    if check_version and (kind is None or kind.version != manifest["schema"]):
        command = kind.command if kind else "sinkscope"
        raise OutputError(
            f"{directory} holds results of another version of sinkscope ({manifest['kind']!r}, schema "
            f"{manifest['schema']}); remove it and make it again with `{command}`"
        )
    return manifest | {"files": files}


@contextmanager
def wrap_read_errors(
    directory: Path, hint: str = "make them again with this version of sinkscope"
) -> Iterator[None]:
    """Within the context, errors other than a `UserError` become an OutputError: one line for the user."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # files from anywhere, or of another version
        raise OutputError(
            f"{directory} holds results that cannot be read ({first_line(error)}); {hint}"
        ) from error


def _checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own entry among the files."""
    files = {name: digest for name, digest in manifest["files"].items() if name != MANIFEST}
    return hashlib.sha256(json.dumps(manifest | {"files": files}, sort_keys=True).encode()).hexdigest()


def is_complete(directory: Path, run_id: str, *, replaced_kind: str | None = None) -> bool:
    """Whether `directory` holds this very run, complete and with unchanged files.

    OutputError if it holds something else (except another run of `replaced_kind`), a file was changed, or no
    run can be created there.
    """
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"output {directory} is a file; give a directory")
    manifest = read_manifest(directory, check_version=replaced_kind is None)
    if manifest is None:
        if directory.exists() and any(directory.iterdir()):
            raise OutputError(
                f"output directory {directory} is not empty and holds no run of sinkscope (no {MANIFEST}); "
                "choose another directory"
            )
    elif manifest["identity"] == run_id:
        verify(directory, manifest)
        return True
    elif manifest["kind"] != replaced_kind:
        raise OutputError(
            f"output directory {directory} holds another run's results; choose another directory"
        )
    _check_replaceable(directory)
    return False


def _check_replaceable(directory: Path) -> None:
    """Refuse a dangling link, a mount point and the current directory: nothing can be renamed to them."""
    if not directory.exists():
        if directory.is_symlink():
            raise OutputError(f"output {directory} is a link that leads nowhere; choose another directory")
        return
    is_current = os.path.samefile(directory, os.curdir)
    if is_current or os.path.ismount(directory):
        what = "the current directory" if is_current else "a mount point"
        raise OutputError(f"output {directory} is {what}, which cannot be replaced; choose a directory in it")


def verify(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file with its checksum; an OutputError names the first that is missing or differs."""
    for name, digest in manifest["files"].items():
        path = directory / name
        if not path.is_file() or sha256(path) != digest:
            raise OutputError(
                f"{path} is missing or was changed since it was written; remove {directory} and run again"
            )


@contextmanager
def create_run(
    directory: Path,
    run_id: str,
    kind: str,
    metadata: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    exclusive: bool = False,
) -> Iterator[Path]:
    """Write a run to a staging directory and rename it at the end, so that `directory` is complete or absent.

    Yields the staging directory, a sibling of `directory`. If another process has written the same run in the
    meantime, that one stays. A link to a directory stays one.

    Args:
        metadata: what the manifest says about the run, as it is at the end.
        overwrite: replace the run that is in `directory`; it is removed once that is done.
        exclusive: refuse if another process is building a run in `directory`.

    Raises:
        OutputError: the directory cannot be written, the disk is full, or something else was written there.
    """
    started = time.time()
    directory = directory.resolve() if directory.is_symlink() else directory
    with staging_directory(directory, directory.parent, exclusive=exclusive) as staging:
        yield staging
        files = checksums(staging)
        manifest = {
            "identity": run_id,
            "schema": version_of(kind),
            "kind": kind,
            **(metadata or {}),
            "versions": versions(),
            "seconds": round(time.time() - started, 1),
            "files": files,
        }
        files[MANIFEST] = _checksum(json.loads(json.dumps(manifest)))  # as it will be read
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        staging.chmod(0o755)
        replaced = staging.with_suffix(".replaced.partial")
        try:
            _rename(staging, directory, replaced if overwrite else None)
        except OSError as error:
            if error.errno not in IN_USE or not is_complete(directory, run_id):
                raise
        shutil.rmtree(replaced, ignore_errors=True)


def _rename(staging: Path, directory: Path, replaced: Path | None) -> None:
    """Rename `staging` to `directory`; what was there is renamed to `replaced`, or must be empty."""
    if directory.is_dir() and replaced:
        os.replace(directory, replaced)
    elif directory.is_dir():
        directory.rmdir()
    try:
        os.replace(staging, directory)
    except BaseException:
        if replaced and replaced.is_dir():
            os.replace(replaced, directory)
        raise


def checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file in a directory except its own manifest, by relative path."""
    return {
        path.relative_to(directory).as_posix(): sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST
    }


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(
    packages: Iterable[str] = ("sinkscope", "torch", "transformers", "transformer-lens"),
    missing: str = "unknown",
) -> dict[str, str]:
    """Versions of packages, by default of those that determine numbers, and of Python."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = missing
    return found
