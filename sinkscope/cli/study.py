"""The command `sinkscope study`: run a study, with a live table of its grids on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.live import Live
from rich.table import Table

from sinkscope.cli.console import print_result, stderr
from sinkscope.cli.options import JsonOpt, PluginOpt
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import read_manifest
from sinkscope.plugins import load_plugins

if TYPE_CHECKING:
    from sinkscope.studies.jobs import Job, StudyProgress
    from sinkscope.studies.store import Store
    from sinkscope.studies.study import StudyPlan

Executor = Literal["local", "ray"]


def study_names() -> list[str]:
    """Studies that come with the package."""
    return ["quickstart"]


def study(  # typer: one parameter per option
    spec: Annotated[
        Path,
        typer.Argument(
            help="a YAML file of grids of runs and what is measured on them, or a name (quickstart)",
            autocompletion=study_names,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="directory for the tables of the study; by default studies/NAME")
    ] = None,
    store: Annotated[Path, typer.Option(help="directory of finished runs, shared by all studies")] = Path(
        "studies/store"
    ),
    quick: Annotated[bool, typer.Option(help="run the smaller version in the specification")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="print the grids, what is done already and the estimated time")
    ] = False,
    executor: Annotated[
        Executor, typer.Option(help="this process, or a cluster (needs sinkscope[ray])")
    ] = "local",
    ray_address: Annotated[
        str, typer.Option(help="address of the Ray cluster; auto: the one of this machine")
    ] = "auto",
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Train, score and analyze grids of runs.

    Finished runs are not run again; a study that was stopped or killed resumes.

    A small SPEC: `{seeds: [0], evaluations: {few: {metrics: [verbmem], limit: 20}}, captures: {own: {}},
    grids: {backdoored: {recipe: tiny/npo-backdoor, set: {optimizer.epochs: 1}, axes: {trigger.placement:
    [prefix, suffix]}, evaluations: [few], captures: [own]}}}`

    Example: `sinkscope study analyses/paper.yaml --quick --out studies/paper-quick`
    """
    load_plugins(plugin or [])
    from sinkscope.errors import StudyError
    from sinkscope.studies.executors import run_locally, run_on_ray
    from sinkscope.studies.spec import Spec, study_file
    from sinkscope.studies.store import Store
    from sinkscope.studies.study import check_separate, plan_study, run_study

    if plugin and executor == "ray":
        raise StudyError(
            "--plugin is not loaded by the workers of a cluster; install it as an entry point there"
        )
    parsed = Spec.read(study_file(spec), quick)
    directory = out or Path("studies") / (spec.stem + ("-quick" if quick else ""))
    run_store = Store(store)
    check_separate(directory, run_store)
    try:
        plan = plan_study(parsed, run_store)
    except StudyError as error:
        raise StudyError(f"{error} (in {spec})") from error
    paths = {"out": str(directory), "store": str(store)}
    if dry_run and json:
        print_result(paths | {"grids": plan.grids.round(2).to_dict("records")}, True)
        return
    if dry_run:
        _print_plan(plan)
        return
    try:
        with live_progress(plan, run_store) as progress:
            run = run_on_ray(ray_address) if executor == "ray" else run_locally
            run_study(parsed, directory, run_store, executor=run, progress=progress, plan=plan)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; finished runs are in {store}, start the study again to resume"
        ) from None
    print_result(paths | {"runs": len(plan.runs), "jobs": len(plan.jobs)}, json)


def _print_plan(plan: StudyPlan) -> None:
    frame = plan.grids.copy()
    frame.loc[len(frame)] = frame[["runs", "jobs", "done", "minutes"]].sum().to_dict() | {"grid": "all"}
    print(frame.assign(minutes=frame["minutes"].map("{:.1f}".format)).to_string(index=False))
    print("minutes: one process, remaining jobs; from similar jobs in this store, else a rough estimate")


@contextmanager
def live_progress(plan: StudyPlan, store: Store) -> Iterator[StudyProgress]:
    """On a terminal a live table of the grids; elsewhere a line on standard error for every finished job."""
    progress = LiveStudyTable(plan, store, is_silent=sys.stderr.isatty())
    if not sys.stderr.isatty():
        yield progress
        return
    with Live(console=stderr, get_renderable=progress.table, refresh_per_second=4):
        yield progress


class LiveStudyTable:
    """Counts the jobs of each grid, measures their time and reports progress."""

    def __init__(self, plan: StudyPlan, store: Store, is_silent: bool) -> None:
        from sinkscope.studies.jobs import sort_jobs
        from sinkscope.studies.time_estimate import Estimate

        self._is_silent = is_silent
        self._estimate = Estimate(plan.jobs, store)
        self._store = store
        self._running: dict[str, Job] = {}
        self._progress: dict[str, tuple[int, int]] = {}
        self._remaining = {job.key: job for job in plan.jobs if not store.is_done(job)}
        self._n_jobs = len(plan.jobs)
        self._n_failed = 0
        self._grids: dict[str, list[str]] = {}
        for grid in plan.grids["grid"]:
            jobs = sort_jobs(job for run in plan.runs if run.grid == grid for job in run.jobs())
            self._grids[grid] = [job.key for job in jobs]

    def started(self, job: Job) -> OnProgress:
        self._running[job.key] = job

        def on_progress(done: int, total: int) -> None:
            self._progress[job.key] = (done, total)

        return on_progress

    def finished(self, job: Job, is_new: bool) -> None:
        self._running.pop(job.key, None)
        if is_new and (manifest := read_manifest(self._store.path(job))):
            self._estimate.add(job, float(manifest["seconds"]))
        if self._remaining.pop(job.key, None) and not self._is_silent:
            n_done = self._n_jobs - len(self._remaining)
            print(f"[{n_done}/{self._n_jobs}] {job}, {self._time_left()}", file=sys.stderr, flush=True)

    def failed(self, job: Job, reason: str) -> None:
        self._running.pop(job.key, None)
        self._remaining.pop(job.key, None)
        self._n_failed += 1
        if not self._is_silent:
            print(f"failed: {job}: {reason}", file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        minutes = sum(self._estimate.seconds(job) for job in list(self._remaining.values())) / 60
        return "less than a minute left" if minutes < 1 else f"about {minutes:.0f} minutes of work left"

    def table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("grid", "jobs done", "of", "running"):
            table.add_column(column, justify="left" if column in ("grid", "running") else "right")
        running = dict(self._running)
        for grid, keys in self._grids.items():
            n_done = sum(key not in self._remaining for key in keys)
            jobs = [f"{running[key]}{self._percentage(key)}" for key in keys if key in running]
            table.add_row(grid, str(n_done), str(len(keys)), "; ".join(jobs[:2]))
        failed = f", {self._n_failed} failed" if self._n_failed else ""
        n_done = self._n_jobs - len(self._remaining)
        table.caption = f"{n_done} of {self._n_jobs} jobs done{failed}, {self._time_left()}"
        return table

    def _percentage(self, key: str) -> str:
        done, total = self._progress.get(key, (0, 0))
        return f" {100 * done // total} %" if total else ""
