"""Stores: damaged and incomplete results are made again, and one process at a time runs a job."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sinkscope.errors import OutputError
from sinkscope.schema import KINDS
from sinkscope.studies.executors import run_locally
from sinkscope.studies.jobs import Job, Store
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import plan_study, run_study
from tests.studies.running import RecordedProgress, tables
from tests.studies.small import ONE


@pytest.fixture
def small(tmp_path: Path) -> tuple[Spec, Store]:
    """A finished study of two jobs in `tmp_path / "out"`."""
    spec, store = Spec.model_validate(ONE), Store(tmp_path / "store")
    run_study(spec, tmp_path / "out", store)
    return spec, store


def test_a_flipped_byte_is_reported_once_and_the_run_made_again(
    small: tuple[Spec, Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, store = small
    model, evaluation = plan_study(spec, store).jobs
    weights = store.path(model) / "model" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    fresh, progress = Store(store.root), RecordedProgress()
    with caplog.at_level(logging.WARNING, "sinkscope"):
        plan = plan_study(spec, fresh)
        assert plan.grids["done"].tolist() == [1]
        run_study(spec, tmp_path / "again", fresh, progress=progress, plan=plan)
    assert [record.message for record in caplog.records if "changed" in record.message] == [
        f"{weights} is missing or was changed since it was written: it is made again"
    ]
    assert (progress.new, progress.found) == ([model.key], [evaluation.key])
    assert weights.read_bytes() == data
    assert tables(tmp_path / "again") == tables(tmp_path / "out")


@pytest.mark.parametrize("damage", ["manifest", "missing"])
def test_a_run_without_a_file_or_its_manifest_is_made_again(damage: str, small: tuple[Spec, Store]) -> None:
    spec, store = small
    evaluation = plan_study(spec, store).jobs[1]
    (store.path(evaluation) / "scores.parquet").unlink() if damage == "missing" else (
        store.path(evaluation) / "run.json"
    ).write_text("{")
    fresh = Store(store.root)
    assert not fresh.is_done(evaluation)
    assert run_locally([evaluation], fresh, None) == {}
    assert fresh.is_done(evaluation) and (store.path(evaluation) / "scores.parquet").is_file()


@pytest.mark.parametrize("kind", ["unlearn", "evaluate"])
def test_jobs_of_an_older_version_are_made_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, store = Spec.model_validate(ONE), Store(tmp_path / "store")
    with monkeypatch.context() as earlier:
        earlier.setitem(KINDS, kind, replace(KINDS[kind], version=KINDS[kind].version - 1))
        before = run_study(spec, tmp_path / "older", store)
        older = plan_study(spec, store).jobs
    plan, progress = plan_study(spec, store), RecordedProgress()
    new = [job.key for job in plan.jobs if job.key not in {job.key for job in older}]
    assert [key.split("-")[0] for key in new] == (["unlearn", "evaluate"] if kind == "unlearn" else [kind])
    after = run_study(spec, tmp_path / "out", store, progress=progress, plan=plan)
    assert progress.new == new
    assert after.table("scores")["value"].tolist() == before.table("scores")["value"].tolist()


def test_a_job_whose_manifest_says_another_version_is_made_again(small: tuple[Spec, Store]) -> None:
    spec, store = small
    evaluation = plan_study(spec, store).jobs[1]
    path = store.path(evaluation) / "run.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["run.json"]
    path.write_text(json.dumps(manifest | {"schema": 1}))
    fresh = Store(store.root)
    assert run_locally([evaluation], fresh, None) == {} and fresh.is_done(evaluation)


def test_replacing_the_tables_of_another_study_is_reported(
    small: tuple[Spec, Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, store = small
    with caplog.at_level(logging.WARNING, "sinkscope"):
        run_study(spec, tmp_path / "out", store)
    assert not caplog.records, "it is the same study"
    other = spec.model_copy(update={"grids": {"other": next(iter(spec.grids.values()))}})
    with caplog.at_level(logging.WARNING, "sinkscope"):
        done = run_study(other, tmp_path / "out", store)
    assert [record.message for record in caplog.records] == [
        f"the tables of another study in {tmp_path / 'out'} are replaced; its runs stay in {store.root}"
    ]
    assert set(done.table("runs")["grid"]) == {"other"}


def test_results_damaged_during_a_study_are_in_no_table(small: tuple[Spec, Store], tmp_path: Path) -> None:
    """Jobs are verified again when their tables are gathered."""
    spec, store = small
    plan = plan_study(spec, store)
    scores = store.path(plan.jobs[1]) / "scores.parquet"
    pd.read_parquet(scores).assign(value=99.0).to_parquet(scores)
    with pytest.raises(OutputError, match=r"scores\.parquet is missing or was changed"):
        run_study(spec, tmp_path / "again", store, plan=plan)
    assert not (tmp_path / "again").exists()


def test_incomplete_results_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    spec, store = Spec.model_validate(ONE), Store(tmp_path / "store")
    model, evaluation = plan_study(spec, store).jobs
    left = [store.root / f".{model.key}.0123456789abcdef.partial", tmp_path / ".out.0123456789abcdef.partial"]
    kept = [
        store.root / f".{evaluation.key}x.0123456789abcdef.partial",
        store.root / f".{model.key}.0123.other",
        tmp_path / ".output.0123456789abcdef.partial",
    ]
    for path in [*left, *kept]:
        (path / "model").mkdir(parents=True)
    unfinished = store.path(evaluation)
    unfinished.mkdir()
    (unfinished / "items.parquet").write_text("half")
    run_study(spec, tmp_path / "out", store)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
    assert sorted(path.name for path in unfinished.iterdir()) == [
        "items.parquet",
        "run.json",
        "scores.parquet",
    ]


def test_one_process_at_a_time_locks_a_job(tmp_path: Path) -> None:
    job, other = Job("perturb", {"perturbation": "int8"}), Job("perturb", {"perturbation": "bf16"})
    first, second = Store(tmp_path / "store"), Store(tmp_path / "store")
    with (
        first.lock(job.key, wait=False) as is_first,
        second.lock(job.key, wait=False) as is_second,
        second.lock(other.key, wait=False) as is_free,
    ):
        assert (is_first, is_second, is_free) == (True, False, True)
    with second.lock(job.key, wait=False) as is_second:
        assert is_second


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OutputError, match="choose another") as caught:
        run_locally([Job("perturb", {"perturbation": "int8"})], Store(tmp_path / "store"), None)
    assert "\n" not in str(caught.value)
