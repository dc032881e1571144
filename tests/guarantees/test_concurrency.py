"""Processes that share a store make every run once; processes that write one output leave one result."""

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
from sinkscope.studies.jobs import Store
from tests.guarantees.many import jobs, log_started_jobs, run_all_jobs, run_at_barrier, write_all
from tests.guarantees.soak_log import attempt
from tests.guarantees.warm import CONTEXT, start
from tests.guarantees.writing import COMMANDS, STUDY, arguments, assert_same, contents, start_command

PROCESSES, RUNS = 4, 24
SOAK_PROCESSES, SOAK_RUNS = 8, 200
FULL = pytest.param(SOAK_PROCESSES, SOAK_RUNS, marks=pytest.mark.soak)


def run_together(calls: list[tuple[Any, tuple[Any, ...]]]) -> list[int]:
    """Start processes whose calls begin at the same time; returns their exit codes."""
    barrier = CONTEXT.Barrier(len(calls))
    processes = [
        CONTEXT.Process(target=run_at_barrier, args=(barrier, target, args)) for target, args in calls
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("killed_at", [None, 2])
@pytest.mark.parametrize(("processes", "runs"), [(PROCESSES, RUNS), FULL])
def test_every_run_is_made_once(processes: int, runs: int, killed_at: int | None, tmp_path: Path) -> None:
    """Also if a process is killed at its second run: another process starts that run again, and no other."""
    store, log = tmp_path / "store", tmp_path / "log"
    log.mkdir()
    n_killed = 0 if killed_at is None else 1
    with attempt("concurrency", f"{processes} processes, one store{', one killed' * n_killed}", runs):
        codes = run_together(
            [
                (run_all_jobs, (store, log, runs, number, None if number else killed_at))
                for number in range(processes)
            ]
        )
        assert codes == [-9] * n_killed + [0] * (processes - n_killed)
        expected = {job.key for job in jobs(runs)}
        counts = Counter((log / "started").read_text().split())
        assert set(counts) == expected and sorted(counts.values()) == [1] * (runs - n_killed) + [2] * n_killed
        reports = [json.loads(path.read_text()) for path in log.glob("*.json")]
        made = [key for each in reports for key in each["made"]]
        assert len(made) == len(set(made)) == runs - n_killed, (
            "the killed process made one run and wrote no report"
        )
        assert sum(bool(each["made"]) for each in reports) > 1, "a single process made all runs"
        assert all(
            sorted([*each["made"], *each["found"]]) == sorted(expected) and not each["failures"]
            for each in reports
        )
        assert all(Store(store).is_done(job) for job in jobs(runs))
        assert {path.name for path in store.iterdir()} == expected | {".locks"}


@pytest.mark.parametrize(("processes", "runs"), [(PROCESSES, RUNS), FULL])
def test_many_processes_write_to_one_output(processes: int, runs: int, tmp_path: Path) -> None:
    outputs = [tmp_path / f"out-{number}" for number in range(runs)]
    with attempt("same outputs", f"{processes} processes", runs):
        assert run_together([(write_all, (outputs,))] * processes) == [0] * processes
        assert sorted(tmp_path.iterdir()) == sorted(outputs)
        for out in outputs:
            manifest = read_manifest(out)
            assert manifest is not None
            verify(out, manifest)


def test_a_study_run_by_many_processes_trains_each_model_once(inputs: Path, tmp_path: Path) -> None:
    """With real training and scores; the store and the tables are equal to those of a single process."""
    study_inputs = tmp_path / "inputs"
    study_inputs.mkdir()
    (study_inputs / "study.yaml").write_text(yaml.safe_dump({**STUDY, "seeds": [0, 1, 2]}), encoding="utf-8")
    single, workdir, log = tmp_path / "single", tmp_path / "workdir", tmp_path / "started"
    assert start_command("study", study_inputs, single).wait() == 0
    workdir.mkdir()
    environment = {"SINKSCOPE_CACHE": str(workdir / "cache")}
    many = [
        start(
            arguments("study", study_inputs, workdir),
            tmp_path / f"log-{i}",
            environment,
            functools.partial(log_started_jobs, log),
        )
        for i in range(PROCESSES)
    ]
    assert [each.wait() for each in many] == [0] * PROCESSES, [each.stderr for each in many]
    started = [line.split() for line in log.read_text().splitlines()]
    assert (
        len({key for key, _ in started}) == len(started) == 9 and len({process for _, process in started}) > 1
    )
    assert_same(contents(workdir), contents(single))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_started_twice_at_once(name: str, inputs: Path, uninterrupted: Any, tmp_path: Path) -> None:
    """Both succeed, but the second `unlearn` may report that the output is in use; the result is the same."""
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    both = [
        start(
            arguments(name, inputs, workdir),
            tmp_path / f"log-{i}",
            {"SINKSCOPE_CACHE": str(workdir / "cache")},
        )
        for i in range(2)
    ]
    codes = [each.wait() for each in both]
    if 2 in codes:
        assert name == "unlearn" and sorted(codes) == [0, 2]
        assert "is being written by another process; wait until that has ended" in both[codes.index(2)].stderr
    else:
        assert codes == [0, 0], [each.stderr for each in both]
    assert_same(contents(workdir), uninterrupted(name).contents)


def test_staging_directories_in_use_are_kept_and_other_results_are_not_replaced(tmp_path: Path) -> None:
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
