"""The commands `sinkscope study` and `sinkscope report`: grids of runs, and one HTML file of results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID

from sinkscope.cli.console import print_result, progress_bars
from sinkscope.cli.options import JsonOpt, PluginOpt
from sinkscope.errors import StudyError
from sinkscope.io.interrupts import keep_interrupts
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import read_manifest
from sinkscope.plugins import load_plugins

if TYPE_CHECKING:
    from sinkscope.studies.jobs import Job, Store
    from sinkscope.studies.study import StudyPlan

Executor = Literal["local", "ray"]
SpecArg = Annotated[
    Path, typer.Argument(help="a YAML file, or the name quickstart", autocompletion=lambda: ["quickstart"])
]
StudyOutOpt = Annotated[Path | None, typer.Option(help="directory for the tables [default: studies/NAME]")]
StoreOpt = Annotated[Path, typer.Option(help="directory of finished runs, shared by all studies")]
QuickOpt = Annotated[bool, typer.Option("--quick", help="run the smaller version in the specification")]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="print the grids, what is done already and the estimated time")
]
ExecutorOpt = Annotated[Executor, typer.Option(help="this process, or a cluster (needs sinkscope[ray])")]
RayOpt = Annotated[str, typer.Option(help="address of the Ray cluster; auto: the one of this machine")]
ResultsArg = Annotated[Path, typer.Argument(help="directory that a command wrote, except tiny")]
PageOpt = Annotated[Path | None, typer.Option(help="HTML file to write [default: RESULTS.html]")]


def study(  # typer: one parameter per option
    spec: SpecArg,
    out: StudyOutOpt = None,
    store: StoreOpt = Path("studies/store"),
    quick: QuickOpt = False,
    dry_run: DryRunOpt = False,
    executor: ExecutorOpt = "local",
    ray_address: RayOpt = "auto",
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Train, score and analyze the grids of runs that SPEC describes.

    Finished runs are not run again; a study that was stopped or killed resumes.

    A small SPEC: `{seeds: [0], evaluations: {few: {metrics: [verbmem], limit: 20}}, captures: {own: {}},
    grids: {backdoored: {recipe: tiny/npo-backdoor, set: {optimizer.epochs: 1}, axes: {trigger.placement:
    [prefix, suffix]}, evaluations: [few], captures: [own]}}}`

    Example: `sinkscope study analyses/paper.yaml --quick --out studies/paper-quick`
    """
    load_plugins(plugin or [])
    from sinkscope.studies.executors import run_locally, run_on_ray
    from sinkscope.studies.jobs import Store
    from sinkscope.studies.spec import Spec, study_file
    from sinkscope.studies.study import check_separate, plan_study, run_study

    if plugin and executor == "ray":
        raise StudyError("--plugin is not loaded by the workers of a cluster; install an entry point there")
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
    elif dry_run:
        _print_plan(plan)
    if dry_run:
        return
    try:
        with keep_interrupts(), progress_bars() as bars:
            progress = StudyProgressBars(plan, run_store, bars)
            run = run_on_ray(ray_address) if executor == "ray" else run_locally
            run_study(parsed, directory, run_store, executor=run, progress=progress, plan=plan)
    except KeyboardInterrupt:
        message = f"stopped; finished runs are in {store}, start the study again to resume"
        raise KeyboardInterrupt(message) from None
    print_result(paths | {"runs": len(plan.runs), "jobs": len(plan.jobs)}, json)


def _print_plan(plan: StudyPlan) -> None:
    frame = plan.grids.copy()
    frame.loc[len(frame)] = frame[["runs", "jobs", "done", "minutes"]].sum().to_dict() | {"grid": "all"}
    print(frame.assign(minutes=frame["minutes"].map("{:.1f}".format)).to_string(index=False))
    print("minutes: one process, remaining jobs; from similar jobs in this store, else a rough estimate")


def report(results: ResultsArg, out: PageOpt = None, json: JsonOpt = False) -> None:
    """Make one self-contained HTML file of results, which needs no network and no other file.

    Example: `sinkscope report sinks --out sinks.html`
    """
    from sinkscope.report import write_report

    page = out or Path(f"{os.path.basename(os.path.realpath(results))}.html")
    print_result({"page": str(page), "bytes": write_report(results, page)}, json)


class StudyProgressBars:
    """Prints a line for every job that ends, and draws bars of the study and of its running jobs."""

    def __init__(self, plan: StudyPlan, store: Store, bars: Progress) -> None:
        from sinkscope.studies.time_estimate import Estimate

        self._store = store
        self._bars = bars
        self._estimate = Estimate(plan.jobs, store)
        self._remaining = {job.key: job for job in plan.jobs if not store.is_done(job)}
        self._n_jobs = len(plan.jobs)
        self._study = bars.add_task("jobs", total=self._n_jobs, completed=self._n_jobs - len(self._remaining))
        self._running: dict[str, TaskID] = {}

    def started(self, job: Job) -> OnProgress:
        task = self._running[job.key] = self._bars.add_task(escape(str(job)), total=None)
        return lambda done, total: self._bars.update(task, completed=done, total=total)

    def finished(self, job: Job, is_new: bool) -> None:
        if is_new and (manifest := read_manifest(self._store.path(job))):
            self._estimate.add(job, float(manifest["seconds"]))
        if self._end(job):
            minutes = sum(map(self._estimate.seconds, self._remaining.values())) / 60
            left = "less than a minute" if minutes < 1 else f"about {minutes:.0f} minutes of work"
            n_done = self._n_jobs - len(self._remaining)
            print(f"[{n_done}/{self._n_jobs}] {job}, {left} left", file=sys.stderr, flush=True)

    def failed(self, job: Job, reason: str) -> None:
        self._end(job)
        print(f"failed: {job}: {reason}", file=sys.stderr, flush=True)

    def _end(self, job: Job) -> bool:
        """Remove the bar of a job; whether the job was still to be done."""
        if job.key in self._running:
            self._bars.remove_task(self._running.pop(job.key))
        was_remaining = self._remaining.pop(job.key, None) is not None
        self._bars.update(self._study, completed=self._n_jobs - len(self._remaining))
        return was_remaining
