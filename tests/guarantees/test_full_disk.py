"""A disk that is full, one that cannot be written, and a limit on files: one line that says so, exit code 2, and nothing half-written."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.guarantees.conftest import Undisturbed
from tests.guarantees.disks import disk, limited, tried
from tests.guarantees.soak_log import attempt
from tests.guarantees.warm import CONTEXT
from tests.guarantees.writing import COMMANDS, OTHERS, assert_whole_or_absent, begin

SIZES, SOAK_SIZES = 2, 12
"""How many disks, from almost none of what a command needs to almost all."""


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no file system may be mounted."""
    at = tmp_path_factory.mktemp("mounts") / "at"
    at.mkdir()
    process = CONTEXT.Process(target=tried, args=(at,))
    process.start()
    process.join()
    if process.exitcode:
        pytest.skip(f"no file system can be mounted here: {os.strerror(process.exitcode)}")


def refused(
    name: str,
    given: Path,
    at: Path,
    message: str,
    within: Callable[[Path, Path], AbstractContextManager[None]],
) -> None:
    at.mkdir()
    kept = at.parent / f"{at.name}.kept"
    command = begin(name, given, at, functools.partial(within, at, kept))
    assert command.end() == 2, command.said
    *progress, last = command.said.splitlines()
    assert last.startswith("sinkscope: ") and message in last and str(at) in last, last
    assert not [line for line in progress if not line.startswith("[")], command.said
    assert_whole_or_absent(kept)
    assert not list(kept.rglob("*.partial"))


@pytest.mark.parametrize("count", [SIZES, pytest.param(SOAK_SIZES, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("mounts")
def test_full(
    name: str, count: int, given: Path, undisturbed: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    whole = undisturbed(name).at
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    for number in range(count):
        size = int(needed * (number + 0.5) / count) // 4096 * 4096
        with attempt("full disk", name):
            refused(
                name,
                given,
                tmp_path / str(number),
                "no space left on the disk of",
                functools.partial(disk, size=max(size, 4096)),
            )


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("mounts")
def test_full_from_the_start(name: str, given: Path, tmp_path: Path) -> None:
    refused(name, given, tmp_path / "at", "no space left on the disk of", functools.partial(disk, size=4096))


@pytest.mark.parametrize("name", [*COMMANDS, *OTHERS])
@pytest.mark.usefixtures("mounts")
def test_read_only(name: str, given: Path, tmp_path: Path) -> None:
    refused(
        name,
        given,
        tmp_path / "at",
        "cannot be written (Read-only file system)",
        functools.partial(disk, size=None),
    )


@pytest.mark.usefixtures("mounts")
def test_a_cache_that_cannot_be_written_is_named(given: Path, tmp_path: Path) -> None:
    at = tmp_path / "at"
    (at / "cache").mkdir(parents=True)
    command = begin("unlearn", given, at, functools.partial(disk, at / "cache", tmp_path / "kept", None))
    assert command.end() == 2
    assert f"sinkscope: {at / 'cache' / 'references'}" in command.said and command.said.count("\n") == 1
    assert sorted(path.name for path in at.iterdir()) == ["cache"]


@pytest.mark.parametrize("name", COMMANDS)
def test_files_may_not_grow(
    name: str, given: Path, undisturbed: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    largest = max(path.stat().st_size for path in undisturbed(name).at.rglob("*") if path.is_file())
    refused(
        name,
        given,
        tmp_path / "at",
        "would exceed the limit on file sizes",
        functools.partial(limited, size=largest // 2),
    )
