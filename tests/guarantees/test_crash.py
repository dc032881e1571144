"""A command that is killed, or stopped by Ctrl-C, leaves its output complete or absent, and done again ends as if it had not been."""

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
from tests.guarantees.conftest import Undisturbed
from tests.guarantees.soak_log import attempt
from tests.guarantees.touching import into, killed, new, replacing, telling_resumed
from tests.guarantees.warm import CONTEXT, Started
from tests.guarantees.writing import COMMANDS, RECIPE, assert_same, assert_whole_or_absent, begin, contents

KILLS, STOPS, SOAK = 2, 1, 30
Whole = Callable[[str], Undisturbed]
Within = Callable[[], AbstractContextManager[None]]


def moments(count: int, seconds: float, seed: str) -> list[float]:
    """Drawn evenly over the time that an undisturbed run takes."""
    rng = random.Random(seed)
    return [rng.uniform(0.01, max(0.02, seconds)) for _ in range(count)]


def interrupted(name: str, given: Path, at: Path, moment: float, by: signal.Signals) -> tuple[Started, Path]:
    """A command that a signal ended, and its directory. Where the signal came too late, for this run was faster, it comes in half the time to another run."""
    at.mkdir()
    for start in itertools.count():
        place = at / str(start)
        command = begin(name, given, place)
        command.kill(moment / 2**start, by)
        if command.process.exitcode:
            return command, place
        assert_whole_or_absent(place)
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
    name: str, by: signal.Signals, count: int, given: Path, undisturbed: Whole, tmp_path: Path
) -> None:
    """Of a user who stops a command, one line says what is kept; nothing else is left, and no half of anything."""
    whole = undisturbed(name)
    for number, moment in enumerate(moments(count, whole.seconds, f"{by.name} {name} {count}")):
        with attempt("crash", f"{by.name} {name}"):
            command, at = interrupted(name, given, tmp_path / str(number), moment, by)
            if by is signal.SIGINT:
                assert command.process.exitcode == 130, command.said
                assert command.said.splitlines()[-1] in (
                    _expected(name, at),
                    *([f"sinkscope: {STOPPED}"] if (at / "out").exists() else []),
                )
                assert not list(at.rglob("*.partial"))
            else:
                assert command.process.exitcode == -by
            done_again(name, given, at, whole)


def done_again(name: str, given: Path, at: Path, whole: Undisturbed, within: Within = nullcontext) -> None:
    """What is left is whole or absent, and the command ends as if it had never been interrupted."""
    assert_whole_or_absent(at)
    again = begin(name, given, at, within)
    assert again.end() == 0, again.said
    assert_same(contents(at), whole.contents)


def test_a_killed_training_goes_on_from_its_newest_checkpoint(
    given: Path, undisturbed: Whole, tmp_path: Path
) -> None:
    at, resumed = tmp_path / "at", tmp_path / "resumed"
    command = begin("unlearn", given, at)
    while not _checkpoints(at) and command.process.is_alive():
        time.sleep(0.001)
    assert command.kill(0), "it had ended before"
    newest = max(int(path.name.removeprefix("step-")) for path in _checkpoints(at))
    done_again("unlearn", given, at, undisturbed("unlearn"), functools.partial(telling_resumed, resumed))
    assert newest > 0 and resumed.read_text() == str(newest)


def _checkpoints(at: Path) -> list[Path]:
    return list(at.glob(".out.*.checkpoints/step-*"))


def _expected(name: str, at: Path) -> str:
    if name == "study" and (at / "store").exists():
        return f"sinkscope: stopped; finished runs are kept in {at / 'store'}, start the study again to go on"
    if _checkpoints(at):
        return "sinkscope: stopped; what is done of the run is kept, start it again to go on"
    return f"sinkscope: {STOPPED}"


def test_who_stops_the_second_of_two_trainings_is_told_that_the_first_is_kept(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    recipe = Recipe.parse(RECIPE | {"value_norms": {"weight": 1.0, "unlearned": "auto"}})
    with pytest.raises(KeyboardInterrupt, match="what is done of the run is kept, start it again to go on"):
        unlearn(recipe, tmp_path / "out", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out-unlearned"]
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        unlearn(Recipe.parse(RECIPE), tmp_path / "other", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out-unlearned"]


@pytest.mark.parametrize("write", [new, replacing, into])
def test_killed_at_every_touch_of_the_file_system(write: Callable[..., None], tmp_path: Path) -> None:
    """What was there before is still there, or gone as a whole, or replaced; and the next one to write there leaves nothing beside it."""
    steps = 0
    while True:
        steps += 1
        at = tmp_path / str(steps)
        out = at / "out [*]"
        at.mkdir()
        if write is not new:
            write(out, "old")
        process = CONTEXT.Process(target=killed, args=(write, out, steps))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        texts = [path.read_text() for path in out.rglob("*.txt") if ".partial" not in str(path)]
        assert len(texts) == 2 or (write is not into and not out.exists())
        assert set(texts) <= {"old" * 1000, "new" * 1000} and (write is into or len(set(texts)) <= 1)
        if write is not into:
            assert_whole_or_absent(at)
        write(out)
        assert {path.read_text() for path in out.rglob("*.txt")} == {"new" * 1000}
        assert not list(at.rglob(".*")), "nothing is left of the killed one"
    assert steps > 10
