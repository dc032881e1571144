"""A command that is killed, or stopped by Ctrl-C, leaves its output complete or absent, and done again ends as if it had not been."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guarantees.commands import COMMANDS, assert_same, assert_whole_or_absent, begin, contents
from tests.guarantees.conftest import Undisturbed
from tests.guarantees.soak_log import record
from tests.guarantees.touching import into, killed, new, replacing
from tests.guarantees.warm import CONTEXT

KILLS, SOAK_KILLS = 2, 30
STOPS, SOAK_STOPS = 1, 10
Whole = Callable[[str], Undisturbed]


def moments(count: int, seconds: float, seed: str) -> list[float]:
    """Drawn evenly over the time that an undisturbed run takes."""
    rng = random.Random(seed)
    return [rng.uniform(0, seconds) for _ in range(count)]


@pytest.mark.parametrize("kills", [KILLS, pytest.param(SOAK_KILLS, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment(name: str, kills: int, given: Path, undisturbed: Whole, tmp_path: Path) -> None:
    """Of the moments, at least half have to come before the end."""
    whole, begun, hits = undisturbed(name), time.monotonic(), 0
    for number, moment in enumerate(moments(kills, whole.seconds, f"{name} {kills}")):
        at = tmp_path / f"kill-{number}"
        hits += begin(name, given, at).kill(moment)
        assert_whole_or_absent(at)
        again = begin(name, given, at)
        assert again.end() == 0, again.said
        assert_same(contents(at), whole.contents)
    assert hits >= kills / 2
    record("crash", f"SIGKILL {name}", kills, 0, time.monotonic() - begun)


@pytest.mark.parametrize("stops", [STOPS, pytest.param(SOAK_STOPS, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", COMMANDS)
def test_stopped_by_the_user(name: str, stops: int, given: Path, undisturbed: Whole, tmp_path: Path) -> None:
    """One line says what is kept; nothing else is left, and no half of anything."""
    whole, begun, hits = undisturbed(name), time.monotonic(), 0
    for number, moment in enumerate(moments(stops, whole.seconds, f"stop {name} {stops}")):
        at = tmp_path / f"stop-{number}"
        command = begin(name, given, at)
        if command.kill(moment, signal.SIGINT) and command.process.exitcode:
            hits += 1
            assert (command.process.exitcode, command.said.splitlines()[-1:]) == (130, [_expected(name, at)]), command.said
        assert_whole_or_absent(at)
        assert not list(at.rglob("*.partial"))
        again = begin(name, given, at)
        assert again.end() == 0, again.said
        assert_same(contents(at), whole.contents)
    assert hits >= stops / 2
    record("crash", f"SIGINT {name}", stops, 0, time.monotonic() - begun)


def _expected(name: str, at: Path) -> str:
    if name == "study" and (at / "store").exists():
        return f"sinkscope: stopped; finished runs are kept in {at / 'store'}, start the study again to go on"
    if list(at.glob(".out.*.checkpoints/step-*")):
        return "sinkscope: stopped; what is done of the run is kept, start it again to go on"
    return "sinkscope: stopped; nothing half-written is left"


@pytest.mark.parametrize("write", [new, replacing, into])
def test_killed_at_every_touch_of_the_file_system(write: Callable[..., None], tmp_path: Path) -> None:
    """What was there before is still there, or gone as a whole, or replaced; and the next one to write there leaves nothing beside it."""
    steps = 0
    while True:
        steps += 1
        at = tmp_path / str(steps)
        out = at / "out"
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
