"""Executors: a failed job fails only the jobs that need it, and a job of another process is left to it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from sinkscope.errors import ModelError, StudyError
from sinkscope.io.run_directory import create_run
from sinkscope.studies import executors
from sinkscope.studies.executors import run_locally
from sinkscope.studies.jobs import Job, Store
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import plan_study, run_study
from tests.studies.running import RecordedProgress
from tests.studies.small import JOBS, ONE, SMALL


@pytest.mark.parametrize(
    "error", [ModelError("no such thing; give another"), RuntimeError("a mistake")], ids=["user", "own"]
)
def test_a_failed_job_fails_only_what_needs_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training of one backdoored seed fails: its measurements and the runs that start from it fail,
    the others run."""
    spec = Spec.model_validate(SMALL)
    store = Store(tmp_path / "store")
    progress = RecordedProgress()
    plan = plan_study(spec, store)
    victim = next(run.model for run in plan.runs if run.grid == "poisoned" and run.seed == 1)
    failed = {victim.key} | {
        job.key
        for run in plan.runs
        if run.seed == 1 and run.grid in ("poisoned", "perturbed")
        for job in run.jobs()
    }
    started = []
    original = executors.run_job

    def run_job(job: Job, *arguments: Any) -> None:
        started.append(job.key)
        if job.key == victim.key:
            raise error
        if job.kind == "unlearn":
            original(job, *arguments)
        else:
            with create_run(store.path(job), job.key, kind=job.kind):
                pass

    is_user_error = isinstance(error, ModelError)
    reason = str(error) if is_user_error else "internal error: RuntimeError: a mistake"
    with monkeypatch.context() as patch:
        patch.setattr(executors, "run_job", run_job)
        with pytest.raises(StudyError if is_user_error else RuntimeError) as caught:
            run_study(spec, tmp_path / "out", store, progress=progress)
    hint = "; correct the study and start it again" if is_user_error else ""
    assert str(caught.value) == f"{len(failed)} of {JOBS} jobs failed, first {victim}: {reason}{hint}"
    assert str(victim) == "unlearn poisoned back seed 1"
    assert len(failed) == 5
    assert set(progress.failures) == failed
    assert progress.failures[victim.key] == reason
    assert set(progress.new) == {job.key for job in plan.jobs} - failed
    assert len(started) == JOBS - 4, "jobs that need the failed one are not started"
    assert not (tmp_path / "out").exists()


def test_an_interrupt_that_a_library_replaces_ends_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch raised ValueError for a Ctrl-C; the other jobs ran on, and the study reported a failed job."""
    started = []

    def run_job(job: Job, *_: Any) -> None:
        started.append(job.key)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of object type 'UntypedStorage'") from None

    monkeypatch.setattr(executors, "run_job", run_job)
    store = Store(tmp_path / "store")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with &
    try:
        with pytest.raises(KeyboardInterrupt):
            run_locally(plan_study(Spec.model_validate(ONE), store).jobs, store, None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(started) == 1


def test_a_second_start_resumes_where_the_first_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec.model_validate(ONE)
    store = Store(tmp_path / "store")
    original = executors.run_job

    def run_job(job: Job, *arguments: Any) -> None:
        if job.kind == "evaluate":
            raise ModelError("no such thing")
        original(job, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(executors, "run_job", run_job)
        message = "1 of 2 jobs failed, first evaluate unlearned seed 0: no such thing"
        with pytest.raises(StudyError, match=message):
            run_study(spec, tmp_path / "out", store)
    progress = RecordedProgress()
    run_study(spec, tmp_path / "out", store, progress=progress)
    assert [key.split("-")[0] for key in progress.found] == ["unlearn"]
    assert [key.split("-")[0] for key in progress.new] == ["evaluate"]


def test_a_job_of_another_process_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other jobs run meanwhile, and the result of the other process is used."""
    spec = Spec.model_validate(ONE)
    store = Store(tmp_path / "store")
    other = Store(tmp_path / "store")
    model, evaluation = plan_study(spec, store).jobs
    free = Job("perturb", {"perturbation": "bf16", "model": "tiny"})
    lock = other.lock(model.key, wait=False)
    assert lock.__enter__() is True
    pauses: list[list[str]] = []

    def sleep(seconds: float) -> None:
        pauses.append(list(progress.new))
        if len(pauses) == 2:
            executors.run_job(model, other)
            lock.__exit__(None, None, None)

    progress = RecordedProgress()
    monkeypatch.setattr(executors.time, "sleep", sleep)
    assert run_locally([model, evaluation, free], store, progress) == {}
    assert pauses == [[free.key], [free.key]]
    assert progress.found == [model.key]
    assert progress.new == [free.key, evaluation.key]
