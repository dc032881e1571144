"""Full disks, read-only disks and file size limits: one error message, exit code 2, no incomplete output."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.guarantees.conftest import UninterruptedRun
from tests.guarantees.disks import disk, file_size_limit, try_mount
from tests.guarantees.soak_log import attempt
from tests.guarantees.warm import CONTEXT
from tests.guarantees.writing import COMMANDS, OTHERS, assert_complete_or_absent, start_command

SIZES, SOAK_SIZES = 2, 12
"""Numbers of disk sizes, from almost nothing to almost all that a command needs."""
PROGRESS = ("[", "model ", "unlearn: ", "resumed after step ", "INFO:sinkscope:")
"""Beginnings of lines that are no errors: jobs of a study, what a model knows, steps."""


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip the test if no file system can be mounted."""
    workdir = tmp_path_factory.mktemp("mounts") / "workdir"
    workdir.mkdir()
    process = CONTEXT.Process(target=try_mount, args=(workdir,))
    process.start()
    process.join()
    if process.exitcode:
        pytest.skip(f"no file system can be mounted here: {os.strerror(process.exitcode)}")


def check_write_error(
    name: str,
    inputs: Path,
    workdir: Path,
    message: str,
    context: Callable[[Path, Path], AbstractContextManager[None]],
) -> None:
    workdir.mkdir()
    copy = workdir.parent / f"{workdir.name}.kept"
    command = start_command(name, inputs, workdir, functools.partial(context, workdir, copy))
    assert command.wait() == 2, command.stderr
    *progress, last = command.stderr.splitlines()
    assert last.startswith("sinkscope: ") and message in last and str(workdir) in last, last
    assert all(line.startswith(PROGRESS) for line in progress), command.stderr
    assert_complete_or_absent(copy)
    assert not list(copy.rglob("*.partial"))


@pytest.mark.parametrize("count", [SIZES, pytest.param(SOAK_SIZES, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("mounts")
def test_full_disk(
    name: str, count: int, inputs: Path, uninterrupted: Callable[[str], UninterruptedRun], tmp_path: Path
) -> None:
    complete = uninterrupted(name).workdir
    needed = sum(path.stat().st_size for path in complete.rglob("*") if path.is_file())
    for number in range(count):
        size = int(needed * (number + 0.5) / count) // 4096 * 4096
        with attempt("full disk", name):
            check_write_error(
                name,
                inputs,
                tmp_path / str(number),
                "no space left on the disk of",
                functools.partial(disk, size=max(size, 4096)),
            )


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("mounts")
def test_disk_full_from_the_start(name: str, inputs: Path, tmp_path: Path) -> None:
    check_write_error(
        name, inputs, tmp_path / "workdir", "no space left on the disk of", functools.partial(disk, size=4096)
    )


@pytest.mark.parametrize("name", [*COMMANDS, *OTHERS])
@pytest.mark.usefixtures("mounts")
def test_read_only_disk(name: str, inputs: Path, tmp_path: Path) -> None:
    check_write_error(
        name,
        inputs,
        tmp_path / "workdir",
        "cannot be written (Read-only file system)",
        functools.partial(disk, size=None),
    )


@pytest.mark.usefixtures("mounts")
def test_a_cache_that_cannot_be_written_is_named(inputs: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "workdir"
    (workdir / "cache").mkdir(parents=True)
    command = start_command(
        "unlearn", inputs, workdir, functools.partial(disk, workdir / "cache", tmp_path / "kept", None)
    )
    assert command.wait() == 2
    *progress, last = command.stderr.splitlines()
    assert last.startswith(f"sinkscope: {workdir / 'cache' / 'references'}")
    assert all(line.startswith(PROGRESS) for line in progress), command.stderr
    assert sorted(path.name for path in workdir.iterdir()) == ["cache"]


@pytest.mark.parametrize("name", COMMANDS)
def test_file_size_limit(
    name: str, inputs: Path, uninterrupted: Callable[[str], UninterruptedRun], tmp_path: Path
) -> None:
    largest = max(path.stat().st_size for path in uninterrupted(name).workdir.rglob("*") if path.is_file())
    check_write_error(
        name,
        inputs,
        tmp_path / "workdir",
        "would exceed the limit on file sizes",
        functools.partial(file_size_limit, size=largest // 2),
    )
