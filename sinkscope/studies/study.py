"""A study as a directory: the jobs done, and what they came to gathered into tables that need no model to be read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import xarray as xr

from sinkscope.errors import OutputError, StudyError, UserError, first_line
from sinkscope.io.atomic import remove_abandoned
from sinkscope.io.run_directory import (
    MANIFEST,
    check_output_path,
    config_hash,
    create_run,
    read_manifest,
    verify,
    wrap_read_errors,
)
from sinkscope.io.tables import load_array, load_netcdf, read_parquet, write_netcdf
from sinkscope.studies.executors import MISTAKE, Executor, run_locally
from sinkscope.studies.graph import Run, runs_of
from sinkscope.studies.jobs import Job, in_order
from sinkscope.studies.progress import StudyProgress
from sinkscope.studies.spec import Spec
from sinkscope.studies.store import Store
from sinkscope.studies.time_estimate import Estimate

LOGGER = logging.getLogger("sinkscope")
TABLES = ("attention", "maps", "span_mass", "top1", "passage")
ARRAYS = {"norms": "value_norm", "patterns": "pattern"}
"""The files of captures that hold arrays, and the variable in each."""
LATEST = {"runs": "trigger"} | dict.fromkeys(TABLES, "job")
"""A column of tables that older versions did not write."""

OTHERWISE = (LookupError, ValueError, TypeError)
"""What reading a study raises that was described otherwise than the reader expects: other metrics, placements or lengths of passages."""


@contextmanager
def wrap_missing_data(told: str) -> Iterator[None]:
    """Within the context what a study has otherwise than expected becomes a line that begins with `told`.

    Raises:
        StudyError: the study has not what was expected.
    """
    try:
        yield
    except UserError:
        raise
    except OTHERWISE as error:
        raise StudyError(f"{told}: {first_line(error)}") from error


@dataclass(frozen=True)
class StudyPlan:
    """What a study will be: a row per grid (grid, runs, jobs, done, minutes), and all jobs in order."""

    runs: list[Run]
    jobs: list[Job]
    grids: pd.DataFrame


def plan_study(spec: Spec, store: Store) -> StudyPlan:
    """Resolve a specification, look at what the store has of it, estimate the rest. A job that several grids ask for counts in the first.

    Raises:
        StudyError: a grid names something that is not there or does not fit.
    """
    runs = runs_of(spec)
    jobs = [
        replace(job, batch_size=spec.batch_size)
        for job in in_order([job for run in runs for job in run.jobs()])
    ]
    estimate, rows = Estimate(jobs, store), []
    counted: set[str] = set()
    for grid in spec.grids:
        mine = [
            job
            for job in in_order([job for run in runs if run.grid == grid for job in run.jobs()])
            if job.key not in counted
        ]
        counted |= {job.key for job in mine}
        left = [job for job in mine if not store.is_done(job)]
        minutes = sum(estimate.seconds(job) for job in left) / 60
        rows.append(
            {
                "grid": grid,
                "runs": sum(run.grid == grid for run in runs),
                "jobs": len(mine),
                "done": len(mine) - len(left),
                "minutes": minutes,
            }
        )
    return StudyPlan(runs, jobs, pd.DataFrame(rows))


def run_study(
    spec: Spec,
    out: Path,
    store: Store,
    *,
    engine: Executor = run_locally,
    watch: StudyProgress | None = None,
    planned: StudyPlan | None = None,
) -> Study:
    """Do all that is not in the store yet and write `out`: `study.yaml`, `runs.parquet`, `scores.parquet`, `items.parquet`, `captures/`.

    An older result of a study in `out` is replaced by the new one at the end.

    Raises:
        StudyError: the specification does not fit, or jobs failed; what the others made stays in the store.
        OutputError: `out` holds something that is no study, or is no place apart from the store.
    """
    check_apart(out, store)
    known = planned or plan_study(spec, store)
    name = config_hash("study", spec=spec.model_dump(mode="json"), jobs=[job.key for job in known.jobs])
    remove_abandoned(
        out, out.parent
    )  # also an old study that was replaced, where the process was killed before it had removed it
    if _holds(out, name):
        return Study(out)
    failures = engine(known.jobs, store, watch or StudyProgress())
    if failures:
        told = {job.key: str(job) for job in known.jobs}
        first = next(iter(failures))
        about = f"{len(failures)} of {len(known.jobs)} jobs failed, first {told[first]}: {failures[first]}"
        if any(reason.startswith(MISTAKE) for reason in failures.values()):
            raise RuntimeError(about)
        raise StudyError(f"{about}; mend the study and start it again")
    with store.locked(f"out-{config_hash('study', out=str(out.absolute()))}", wait=True):
        if not _holds(out, name):
            if (out / MANIFEST).exists():
                LOGGER.warning(
                    "the tables of another study in %s are replaced; its runs stay in %s", out, store.root
                )
            with create_run(out, name, kind="study", overwrite=True, jobs=len(known.jobs)) as aside:
                (aside / "study.yaml").write_text(spec.to_yaml(), encoding="utf-8")
                _gather(known.runs, store, aside)
    return Study(out)


def check_apart(out: Path, store: Store) -> None:
    """Whether a study's tables and the store of finished runs have places of their own.

    Raises:
        OutputError: one lies in the other.
    """
    one, other = (
        Path(os.path.realpath(each)) for each in (out, store.root)
    )  # where `resolve` fails at a loop of links
    if one == other or one in other.parents or other in one.parents:
        raise OutputError(
            f"output {out} and the store of finished runs {store.root} lie in one another; choose another place with --out"
        )


def _holds(out: Path, name: str) -> bool:
    """Whether `out` holds this very study; False also for an older one, which may be replaced.

    Raises:
        OutputError: it holds something that is no study, a file of the study was changed, or no study can be put there.
    """
    manifest = read_manifest(out) if out.exists() else None
    if (
        out.exists()
        and (manifest is None or manifest.get("kind") != "study")
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise OutputError(
            f"output {out} has no {MANIFEST} of a study, and holds something that is no study; choose another with --out"
        )
    known = () if manifest is None else (*manifest["files"], MANIFEST)
    if foreign := [
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and str(path.relative_to(out)) not in known
    ]:
        raise OutputError(
            f"output {out} holds a file that is not the study's ({foreign[0]}); move it, or choose another with --out"
        )
    if manifest is None or manifest["identity"] != name:
        check_output_path(out)
        return False
    verify(out, manifest)
    return True


def _gather(runs: Sequence[Run], store: Store, directory: Path) -> None:
    """All tables of all runs, each row with its run's grid, labels and seed.

    Raises:
        OutputError: a file of the store was changed since it was looked at.
    """
    frames: dict[str, list[pd.DataFrame]] = {}
    arrays: dict[str, dict[str, xr.Dataset]] = {file: {} for file in ARRAYS}
    for run in runs:
        about = {"grid": run.grid, "run": run.name, **{key: str(value) for key, value in run.labels.items()}}
        told = {
            "seed": run.seed,
            "role": run.role,
            "benchmark": run.benchmark,
            "trigger": run.trigger.text,
            "trigger_placement": run.trigger.placement,
        }
        frames.setdefault("runs", []).append(pd.DataFrame([about | told]))
        for evaluation, job in run.evaluations.items():
            for table in ("scores", "items"):
                frame = pd.read_parquet(store.whole(job) / f"{table}.parquet").drop(columns=["model", "seed"])
                frames.setdefault(table, []).append(
                    _with(frame, about | {"seed": run.seed, "evaluation": evaluation})
                )
        for capture, job in run.captures.items():
            place, whose = (
                store.whole(job),
                {**about, "seed": run.seed, "role": run.role, "capture": capture, "job": job.key},
            )
            for table in TABLES:
                if (place / f"{table}.parquet").is_file():
                    frames.setdefault(f"captures/{table}", []).append(
                        _with(pd.read_parquet(place / f"{table}.parquet"), whose)
                    )
            for file in ARRAYS:
                if job.key not in arrays[file] and (place / f"{file}.nc").is_file():
                    arrays[file][job.key] = load_netcdf(place / f"{file}.nc")
    for table, each in frames.items():
        path = directory / f"{table}.parquet"
        path.parent.mkdir(exist_ok=True)
        pd.concat(each, ignore_index=True).to_parquet(path, index=False)
    for file, variable in ARRAYS.items():
        if arrays[file]:
            write_netcdf(arrays[file], directory / "captures" / f"{file}.nc", {variable: {"zlib": True}})


def _with(frame: pd.DataFrame, about: dict[str, object]) -> pd.DataFrame:
    kept = frame.drop(columns=[column for column in about if column in frame])
    return pd.concat([pd.DataFrame(about, index=kept.index), kept], axis=1)


class Study:
    """A finished study, read from its directory.

    Raises:
        StudyError: there is none.
    """

    def __init__(self, directory: Path) -> None:
        manifest = read_manifest(directory) if directory.is_dir() else None
        if manifest is None or manifest.get("kind") != "study":
            raise StudyError(
                f"{directory} holds no finished study (no {MANIFEST} of one); run `sinkscope study SPEC --out {directory}` first"
            )
        verify(directory, manifest)
        self.directory = directory
        self.spec = Spec.read(directory / "study.yaml")
        self._tables: dict[str, pd.DataFrame] = {}

    def table(self, name: str) -> pd.DataFrame:
        """`runs`, `scores`, `items`, or of the captures `attention`, `maps`, `span_mass`, `top1`, `passage`.

        Raises:
            StudyError: the study has no such table.
            OutputError: it cannot be read, or an older sinkscope wrote it.
        """
        if name not in self._tables:
            path = (self.directory / "captures" if name in TABLES else self.directory) / f"{name}.parquet"
            if not path.is_file():
                raise StudyError(
                    f"study {self.directory} has no table {name}; ask for it in the specification"
                )
            with wrap_read_errors(path):
                table = read_parquet(path)
            if name in LATEST and LATEST[name] not in table:
                raise OutputError(
                    f"{self.directory} was gathered by an older sinkscope; run `sinkscope study` again: what is done is not done again"
                )
            self._tables[name] = table
        return self._tables[name]

    def norms(self, job: str) -> xr.DataArray:
        """Value norms that one capture (column `job` of the tables of captures) saw: condition × passage × layer × kv_head × position.

        Raises:
            StudyError: the study has no such capture.
        """
        return self._array("norms", job)

    def patterns(self, job: str) -> xr.DataArray:
        """Mean maps of every head: placement × state × layer × head × query × key, in bins of the attribute `bin`; as above."""
        return self._array("patterns", job)

    def _array(self, file: str, job: str) -> xr.DataArray:
        try:
            return load_array(self.directory / "captures" / f"{file}.nc", ARRAYS[file], job)
        except (OSError, KeyError) as error:
            raise StudyError(
                f"study {self.directory} has no {file} of {job}; ask for a capture in the specification"
            ) from error
