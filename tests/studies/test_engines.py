"""Engines: a job that fails takes along only what needs it, and one that another process is at is left to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sinkscope.errors import ModelError, StudyError
from sinkscope.studies import executors as engines
from sinkscope.studies.executors import run_locally
from sinkscope.studies.jobs import Job
from sinkscope.studies.spec import Spec
from sinkscope.studies.store import Store
from sinkscope.studies.study import plan_study, run_study
from tests.studies.running import Told
from tests.studies.small import JOBS, ONE, SMALL


@pytest.mark.parametrize(
    "error", [ModelError("no such thing; give another"), RuntimeError("a mistake")], ids=["user", "own"]
)
def test_a_failing_job_fails_only_what_needs_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training of one poisoned seed fails: what is measured on it and what comes after it are lost, all else is done."""
    spec, store, told = Spec.model_validate(SMALL), Store(tmp_path / "store"), Told()
    planned = plan_study(spec, store)
    victim = next(run.model for run in planned.runs if run.grid == "poisoned" and run.seed == 1)
    lost = {victim.key} | {
        job.key
        for run in planned.runs
        if run.seed == 1 and run.grid in ("poisoned", "altered")
        for job in run.jobs()
    }
    original, tried = engines.perform, []

    def perform(job: Job, *arguments: Any) -> None:
        tried.append(job.key)
        if job.key == victim.key:
            raise error
        if job.kind == "unlearn":
            original(job, *arguments)
        else:
            store.place(job).mkdir()
            (store.place(job) / "run.json").write_text(
                json.dumps({"identity": job.key, "files": {}, "seconds": 0.1})
            )

    user = isinstance(error, ModelError)
    reason = str(error) if user else "internal error: RuntimeError: a mistake"
    with monkeypatch.context() as patch:
        patch.setattr(engines, "perform", perform)
        with pytest.raises(StudyError if user else RuntimeError) as caught:
            run_study(spec, tmp_path / "out", store, watch=told)
    assert str(caught.value) == f"{len(lost)} of {JOBS} jobs failed, first {victim}: {reason}" + (
        "; mend the study and start it again" if user else ""
    )
    assert str(victim) == "unlearn poisoned back seed 1"
    assert len(lost) == 5 and set(told.lost) == lost and told.lost[victim.key] == reason
    assert set(told.made) == {job.key for job in planned.jobs} - lost and len(tried) == JOBS - 4, (
        "what needs it is not tried"
    )
    assert not (tmp_path / "out").exists()


def test_a_second_start_goes_on_where_the_first_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, store = Spec.model_validate(ONE), Store(tmp_path / "store")
    original = engines.perform

    def spoilt(job: Job, *arguments: Any) -> None:
        if job.kind == "evaluate":
            raise ModelError("no such thing")
        original(job, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engines, "perform", spoilt)
        with pytest.raises(
            StudyError, match="1 of 2 jobs failed, first evaluate honest seed 0: no such thing"
        ):
            run_study(spec, tmp_path / "out", store)
    told = Told()
    run_study(spec, tmp_path / "out", store, watch=told)
    assert [key.split("-")[0] for key in told.found] == ["unlearn"] and [
        key.split("-")[0] for key in told.made
    ] == ["evaluate"]


def test_a_job_that_another_process_is_at_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is done meanwhile, and what the other one made is used."""
    spec, store, other = Spec.model_validate(ONE), Store(tmp_path / "store"), Store(tmp_path / "store")
    model, evaluation = plan_study(spec, store).jobs
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
    assert run_locally([model, evaluation, free], store, told) == {}
    assert slept == [[free.key], [free.key]]
    assert (told.found, told.made) == ([model.key], [free.key, evaluation.key])
