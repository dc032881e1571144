"""`sinkscope study`"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.live import Live
from rich.table import Table

from sinkscope.cli.console import print_result, stderr
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import read_manifest
from sinkscope.studies.progress import StudyProgress

if TYPE_CHECKING:
    from sinkscope.studies.jobs import Job
    from sinkscope.studies.store import Store
    from sinkscope.studies.study import StudyPlan

ENGINES = ("inline", "ray")


def study(
    spec: Annotated[
        Path,
        typer.Argument(
            help="a YAML file, or a name (quickstart): grids of recipes × seeds, and what is measured on them"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="directory to write the study's tables to; by default studies/NAME")
    ] = None,
    store: Annotated[Path, typer.Option(help="directory of finished runs, shared by all studies")] = Path(
        "studies/store"
    ),
    quick: Annotated[bool, typer.Option(help="the specification's smaller version")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="print the grid, what is done already and the estimated time")
    ] = False,
    engine: Annotated[str, typer.Option(help="inline, or ray (needs sinkscope[ray])")] = "inline",
    address: Annotated[
        str, typer.Option(help="of the Ray cluster; auto: the one that this machine belongs to")
    ] = "auto",
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Train, score and look at a whole grid of runs. Finished runs are skipped; a study that was stopped or killed goes on where it was.

    A small SPEC: `{seeds: [0], evaluations: {few: {metrics: [verbmem], items: 20}}, captures: {own: {}}, grids: {mine: {recipe: tiny/npo-backdoor,
    set: {optimizer.epochs: 1}, axes: {trigger.placement: [prefix, suffix]}, evaluations: [few], captures: [own]}}}`

    Example: `sinkscope study analyses/paper.yaml --quick --out studies/paper-quick`
    """
    from sinkscope.errors import StudyError
    from sinkscope.studies.executors import run_locally
    from sinkscope.studies.ray_executor import run_on_ray
    from sinkscope.studies.spec import Spec, study_file
    from sinkscope.studies.store import Store
    from sinkscope.studies.study import check_apart, plan_study
    from sinkscope.studies.study import run_study as run

    if engine not in ENGINES:
        raise StudyError(f"engine {engine!r} is unknown; use {' or '.join(ENGINES)}")
    described = Spec.read(study_file(spec), quick)
    place = out or Path("studies") / (spec.stem + ("-quick" if quick else ""))
    where = Store(store)
    check_apart(place, where)
    try:
        planned = plan_study(described, where)
    except StudyError as error:
        raise StudyError(f"{error} (in {spec})") from error
    if dry_run:
        if json:
            print_result(
                {"out": str(place), "store": str(store), "grids": planned.grids.round(2).to_dict("records")},
                True,
            )
        else:
            _print(planned)
        return
    try:
        with live_progress(planned, where) as watch:
            run(
                described,
                place,
                where,
                engine=run_on_ray(address) if engine == "ray" else run_locally,
                watch=watch,
                planned=planned,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; finished runs are kept in {store}, start the study again to go on"
        ) from None
    print_result(
        {"out": str(place), "store": str(store), "runs": len(planned.runs), "jobs": len(planned.jobs)}, json
    )


def _print(planned: StudyPlan) -> None:
    frame = planned.grids.copy()
    total = frame[["runs", "jobs", "done", "minutes"]].sum().to_dict() | {"grid": "all"}
    frame.loc[len(frame)] = total
    print(frame.assign(minutes=frame["minutes"].map("{:.1f}".format)).to_string(index=False))
    print(
        "minutes: of one process at the jobs that are left; as long as their like took in this store, else a rough count of operations"
    )


@contextmanager
def live_progress(planned: StudyPlan, store: Store) -> Iterator[StudyProgress]:
    """On a terminal a live table of the grids; elsewhere a line on standard error for every finished run."""
    watch = _Telling(planned, store)
    if not sys.stderr.isatty():
        yield watch
        return
    with Live(console=stderr, get_renderable=watch.table, refresh_per_second=4):
        watch.silent = True
        yield watch


class _Telling(StudyProgress):
    """Counts jobs by grid, times them, and says how far they are."""

    def __init__(self, planned: StudyPlan, store: Store) -> None:
        from sinkscope.studies.jobs import in_order
        from sinkscope.studies.time_estimate import Estimate

        self.silent = False
        self._estimate = Estimate(planned.jobs, store)
        self._store = store
        self._begun: dict[str, Job] = {}
        self._left = {job.key: job for job in planned.jobs if not store.is_done(job)}
        self._grids = {
            grid: [job.key for run in planned.runs if run.grid == grid for job in in_order(run.jobs())]
            for grid in planned.grids["grid"]
        }
        self._grids = {grid: list(dict.fromkeys(keys)) for grid, keys in self._grids.items()}
        self._parts: dict[str, tuple[int, int]] = {}
        self._total, self._failed = len(planned.jobs), 0

    def started(self, job: Job) -> OnProgress:
        self._begun[job.key] = job
        return lambda done, total: self._parts.__setitem__(job.key, (done, total))

    def finished(self, job: Job, made: bool) -> None:
        self._begun.pop(job.key, None)
        if made and (manifest := read_manifest(self._store.place(job))):
            self._estimate.learn(job, float(manifest["seconds"]))
        if self._left.pop(job.key, None) and not self.silent:
            print(
                f"[{self._total - len(self._left)}/{self._total}] {job}, {self._time_left()}",
                file=sys.stderr,
                flush=True,
            )

    def failed(self, job: Job, reason: str) -> None:
        self._begun.pop(job.key, None)
        self._left.pop(job.key, None)
        self._failed += 1
        if not self.silent:
            print(f"failed: {job}: {reason}", file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        minutes = sum(self._estimate.seconds(job) for job in list(self._left.values())) / 60
        return "less than a minute left" if minutes < 1 else f"about {minutes:.0f} minutes of work left"

    def table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("grid", "jobs done", "of", "at work"):
            table.add_column(column, justify="left" if column in ("grid", "at work") else "right")
        working = dict(self._begun)
        for grid, keys in self._grids.items():
            done = sum(key not in self._left for key in keys)
            here = [f"{working[key]}{self._share(key)}" for key in keys if key in working]
            table.add_row(grid, str(done), str(len(keys)), "; ".join(here[:2]))
        failed = f", {self._failed} failed" if self._failed else ""
        table.caption = (
            f"{self._total - len(self._left)} of {self._total} jobs done{failed}, {self._time_left()}"
        )
        return table

    def _share(self, key: str) -> str:
        done, total = self._parts.get(key, (0, 0))
        return f" {100 * done // total} %" if total else ""
