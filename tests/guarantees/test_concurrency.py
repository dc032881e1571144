"""Many processes on one store make every run once; many that write to one place leave one result, and none removes what another is at."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from sinkscope.errors import OutputError
from sinkscope.io.run_directory import create_run, read_manifest, verify
from sinkscope.studies.store import Store
from tests.guarantees.many import at_once, jobs, telling_made, work_through, write_again_and_again
from tests.guarantees.soak_log import attempt
from tests.guarantees.warm import CONTEXT, start
from tests.guarantees.writing import COMMANDS, STUDY, arguments, assert_same, begin, contents

PROCESSES, RUNS = 4, 24
SOAK_PROCESSES, SOAK_RUNS = 8, 200
FULL = pytest.param(SOAK_PROCESSES, SOAK_RUNS, marks=pytest.mark.soak)


def together(calls: list[tuple[Any, tuple[Any, ...]]]) -> list[int]:
    """Processes that begin when all of them are there; their exit codes."""
    barrier = CONTEXT.Barrier(len(calls))
    processes = [CONTEXT.Process(target=at_once, args=(barrier, target, args)) for target, args in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("dies_at", [None, 2])
@pytest.mark.parametrize(("processes", "runs"), [(PROCESSES, RUNS), FULL])
def test_every_run_is_made_once(processes: int, runs: int, dies_at: int | None, tmp_path: Path) -> None:
    """Also where one of the processes is killed at its second run: that one alone is begun again, by another."""
    store, log = tmp_path / "store", tmp_path / "log"
    log.mkdir()
    died = 0 if dies_at is None else 1
    with attempt("concurrency", f"{processes} processes, one store{', one killed' * died}", runs):
        codes = together(
            [
                (work_through, (store, log, runs, number, None if number else dies_at))
                for number in range(processes)
            ]
        )
        assert codes == [-9] * died + [0] * (processes - died)
        wanted = {job.key for job in jobs(runs)}
        counted = Counter((log / "begun").read_text().split())
        assert set(counted) == wanted and sorted(counted.values()) == [1] * (runs - died) + [2] * died
        told = [json.loads(path.read_text()) for path in log.glob("*.json")]
        made = [key for each in told for key in each["made"]]
        assert len(made) == len(set(made)) == runs - died, "the killed one had made its first and cannot tell"
        assert sum(bool(each["made"]) for each in told) > 1, "one process alone did the work"
        assert all(
            sorted([*each["made"], *each["found"]]) == sorted(wanted) and not each["failures"]
            for each in told
        )
        assert all(Store(store).is_done(job) for job in jobs(runs))
        assert {path.name for path in store.iterdir()} == wanted | {".locks"}


@pytest.mark.parametrize(("processes", "runs"), [(PROCESSES, RUNS), FULL])
def test_many_write_to_one_place(processes: int, runs: int, tmp_path: Path) -> None:
    places = [tmp_path / f"out-{number}" for number in range(runs)]
    with attempt("same outputs", f"{processes} processes", runs):
        assert together([(write_again_and_again, (places,))] * processes) == [0] * processes
        assert sorted(tmp_path.iterdir()) == sorted(places)
        for place in places:
            manifest = read_manifest(place)
            assert manifest is not None
            verify(place, manifest)


def test_a_study_that_many_processes_are_at_trains_each_model_once(given: Path, tmp_path: Path) -> None:
    """Real trainings and scores; the store and the study's tables are those of one process alone."""
    own = tmp_path / "given"
    own.mkdir()
    (own / "study.yaml").write_text(yaml.safe_dump({**STUDY, "seeds": [0, 1, 2]}), encoding="utf-8")
    alone, at, log = tmp_path / "alone", tmp_path / "at", tmp_path / "begun"
    assert begin("study", own, alone).end() == 0
    at.mkdir()
    environment = {"SINKSCOPE_CACHE": str(at / "cache")}
    many = [
        start(
            arguments("study", own, at),
            tmp_path / f"log-{i}",
            environment,
            functools.partial(telling_made, log),
        )
        for i in range(PROCESSES)
    ]
    assert [each.end() for each in many] == [0] * PROCESSES, [each.said for each in many]
    begun = [line.split() for line in log.read_text().splitlines()]
    assert len({key for key, _ in begun}) == len(begun) == 9 and len({process for _, process in begun}) > 1
    assert_same(contents(at), contents(alone))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_started_twice_at_once(name: str, given: Path, undisturbed: Any, tmp_path: Path) -> None:
    """Both say that it is done, but for a training, of which the second says that there is another; the result is that of one."""
    at = tmp_path / "at"
    at.mkdir()
    both = [
        start(arguments(name, given, at), tmp_path / f"log-{i}", {"SINKSCOPE_CACHE": str(at / "cache")})
        for i in range(2)
    ]
    codes = [each.end() for each in both]
    if 2 in codes:
        assert name == "unlearn" and sorted(codes) == [0, 2]
        assert "is being written by another process; wait until that has ended" in both[codes.index(2)].said
    else:
        assert codes == [0, 0], [each.said for each in both]
    assert_same(contents(at), undisturbed(name).contents)


def test_one_that_lives_is_left_alone_and_one_that_came_first_stays(tmp_path: Path) -> None:
    with create_run(tmp_path / "out", "same", kind="locate") as first:
        (first / "file").write_text("first")
        with create_run(tmp_path / "out", "same", kind="locate") as second:
            (second / "file").write_text("second")
        assert (first / "file").exists()
    assert (tmp_path / "out" / "file").read_text() == "second"
    other = tmp_path / "other"
    with (
        pytest.raises(OutputError, match="holds another run's results"),
        create_run(other, "mine", kind="locate"),
        create_run(other, "theirs", kind="locate"),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]
