"""Every command that writes, carried out once and never disturbed: what it leaves, and how long it takes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guarantees.commands import begin, contents, give


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return give(tmp_path_factory.mktemp("guarantees") / "given")


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
