"""A killed or interrupted command leaves complete or no outputs; run again, it has the usual result."""

from __future__ import annotations

import functools
import itertools
import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from sinkscope.cli.main import STOPPED
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from tests.guarantees.conftest import UninterruptedRun
from tests.guarantees.soak_log import attempt
from tests.guarantees.touching import log_resumed_step, run_killed, write_into, write_new, write_replacing
from tests.guarantees.warm import CONTEXT, RunningCommand
from tests.guarantees.writing import (
    COMMANDS,
    RECIPE,
    assert_complete_or_absent,
    assert_same,
    contents,
    start_command,
)

KILLS, STOPS, SOAK = 2, 1, 30
UninterruptedRuns = Callable[[str], UninterruptedRun]
ContextFactory = Callable[[], AbstractContextManager[None]]


def moments(count: int, seconds: float, seed: str) -> list[float]:
    """Random moments, uniform over the duration of an uninterrupted run."""
    rng = random.Random(seed)
    return [rng.uniform(0.01, max(0.02, seconds)) for _ in range(count)]


def start_and_interrupt(
    name: str, inputs: Path, workdir: Path, moment: float, by: signal.Signals
) -> tuple[RunningCommand, Path]:
    """A command that a signal ended, and its directory.

    If the command ended before the signal, another one gets the signal after half the time.
    """
    workdir.mkdir()
    for attempts in itertools.count():
        directory = workdir / str(attempts)
        command = start_command(name, inputs, directory)
        command.kill(moment / 2**attempts, by)
        if command.process.exitcode:
            return command, directory
        assert_complete_or_absent(directory)
    raise AssertionError


@pytest.mark.parametrize(
    ("by", "count"),
    [
        (signal.SIGKILL, KILLS),
        (signal.SIGINT, STOPS),
        pytest.param(signal.SIGKILL, SOAK, marks=pytest.mark.soak),
        pytest.param(signal.SIGINT, SOAK, marks=pytest.mark.soak),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_at_any_moment(
    name: str, by: signal.Signals, count: int, inputs: Path, uninterrupted: UninterruptedRuns, tmp_path: Path
) -> None:
    """After Ctrl-C, one line says what is kept, and no staging directory remains."""
    complete = uninterrupted(name)
    for number, moment in enumerate(moments(count, complete.seconds, f"{by.name} {name} {count}")):
        with attempt("crash", f"{by.name} {name}"):
            command, workdir = start_and_interrupt(name, inputs, tmp_path / str(number), moment, by)
            if by is signal.SIGINT:
                assert command.process.exitcode == 130, command.stderr
                assert command.stderr.splitlines()[-1] in (
                    _stop_message(name, workdir),
                    *([f"sinkscope: {STOPPED}"] if (workdir / "out").exists() else []),
                )
                assert not list(workdir.rglob("*.partial"))
            else:
                assert command.process.exitcode == -by
            check_rerun(name, inputs, workdir, complete)


def check_rerun(
    name: str, inputs: Path, workdir: Path, complete: UninterruptedRun, context: ContextFactory = nullcontext
) -> None:
    """Check that outputs are complete or absent, and that another run of the command completes them."""
    assert_complete_or_absent(workdir)
    again = start_command(name, inputs, workdir, context)
    assert again.wait() == 0, again.stderr
    assert_same(contents(workdir), complete.contents)


def test_a_killed_training_resumes_from_its_newest_checkpoint(
    inputs: Path, uninterrupted: UninterruptedRuns, tmp_path: Path
) -> None:
    workdir, resumed = tmp_path / "workdir", tmp_path / "resumed"
    command = start_command("unlearn", inputs, workdir)
    while not _checkpoints(workdir) and command.process.is_alive():
        time.sleep(0.001)
    assert command.kill(0), "the training ended before it was killed"
    newest = max(int(path.name.removeprefix("step-")) for path in _checkpoints(workdir))
    check_rerun(
        "unlearn", inputs, workdir, uninterrupted("unlearn"), functools.partial(log_resumed_step, resumed)
    )
    assert newest > 0 and resumed.read_text() == str(newest)


def _checkpoints(workdir: Path) -> list[Path]:
    return list(workdir.glob(".out.*.checkpoints/step-*"))


def _stop_message(name: str, workdir: Path) -> str:
    if name == "study" and (workdir / "store").exists():
        kept = f"finished runs are in {workdir / 'store'}"
        return f"sinkscope: stopped; {kept}, start the study again to resume"
    if _checkpoints(workdir):
        return "sinkscope: stopped; start the run again to resume it from its checkpoint"
    return f"sinkscope: {STOPPED}"


def test_interrupting_the_second_of_two_trainings_keeps_the_first(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    recipe = Recipe.parse(RECIPE | {"value_norms": {"weight": 1.0, "unlearned": "auto"}})
    with pytest.raises(KeyboardInterrupt, match="start the run again to resume it from its checkpoint"):
        unlearn(recipe, tmp_path / "out", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out-unlearned"]
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        unlearn(Recipe.parse(RECIPE), tmp_path / "other", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out-unlearned"]


@pytest.mark.parametrize("write", [write_new, write_replacing, write_into])
def test_killed_at_every_file_system_operation(write: Callable[..., None], tmp_path: Path) -> None:
    """The previous files are all kept, removed or replaced; the next write removes all temporary files."""
    steps = 0
    while True:
        steps += 1
        workdir = tmp_path / str(steps)
        out = workdir / "out [*]"
        workdir.mkdir()
        if write is not write_new:
            write(out, "old")
        process = CONTEXT.Process(target=run_killed, args=(write, out, steps))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        texts = [path.read_text() for path in out.rglob("*.txt") if ".partial" not in str(path)]
        assert len(texts) == 2 or (write is not write_into and not out.exists())
        assert set(texts) <= {"old" * 1000, "new" * 1000} and (write is write_into or len(set(texts)) <= 1)
        if write is not write_into:
            assert_complete_or_absent(workdir)
        write(out)
        assert {path.read_text() for path in out.rglob("*.txt")} == {"new" * 1000}
        assert not list(workdir.rglob(".*")), "temporary files of the killed process were not removed"
    assert steps > 10
