"""A study as a directory: run all jobs of a specification, gather their results into tables, read them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from sinkscope.errors import OutputError, StudyError
from sinkscope.io.atomic import remove_abandoned
from sinkscope.io.run_directory import (
    MANIFEST,
    config_hash,
    create_or_load,
    is_complete,
    read_manifest,
    verify,
    wrap_read_errors,
)
from sinkscope.io.tables import load_array, load_netcdf, read_parquet, write_netcdf
from sinkscope.schema import CAPTURE
from sinkscope.studies.executors import Executor, Outcome, StudyProgress, run_locally
from sinkscope.studies.figure_index import INDEX, FigureIndex
from sinkscope.studies.graph import expand_study
from sinkscope.studies.jobs import Job, Run, Store, sort_jobs
from sinkscope.studies.spec import Spec
from sinkscope.studies.time_estimate import Estimate

LOGGER = logging.getLogger("sinkscope")
TABLES = tuple(file.removesuffix(".parquet") for file in CAPTURE)
"""Tables of captures."""
ARRAYS = {"norms": "value_norm", "patterns": "pattern"}
"""Files of captures that hold arrays, and the variable in each."""
FIGURES = "figures"
"""Subdirectory of a study that `analyses/make.py` writes; it is not part of the checksums."""


@dataclass(frozen=True)
class StudyPlan:
    """The runs of a study, all jobs in order, and a row per grid (grid, runs, jobs, done, minutes)."""

    runs: list[Run]
    jobs: list[Job]
    grids: pd.DataFrame


def plan_study(spec: Spec, store: Store) -> StudyPlan:
    """Resolve a specification, and estimate the time of what the store does not have.

    A job of several grids counts in the first one.

    Raises:
        StudyError: a grid names something that does not exist or does not fit.
    """
    runs = expand_study(spec)
    jobs = sort_jobs(job for run in runs for job in run.jobs())
    estimate = Estimate(jobs, store)
    counted: set[str] = set()
    rows = []
    for grid in spec.grids:
        runs_of_grid = [run for run in runs if run.grid == grid]
        jobs_of_grid = sort_jobs(job for run in runs_of_grid for job in run.jobs())
        new = [job for job in jobs_of_grid if job.key not in counted]
        counted |= {job.key for job in new}
        missing = [job for job in new if not store.is_done(job)]
        minutes = sum(estimate.seconds(job) for job in missing) / 60
        rows.append([grid, len(runs_of_grid), len(new), len(new) - len(missing), minutes])
    return StudyPlan(runs, jobs, pd.DataFrame(rows, columns=["grid", "runs", "jobs", "done", "minutes"]))


def run_study(
    spec: Spec,
    out: Path,
    store: Store,
    *,
    executor: Executor = run_locally,
    progress: StudyProgress | None = None,
    plan: StudyPlan | None = None,
) -> Study:
    """Run all jobs that are not in the store, and write the tables of the study to `out`.

    `out` gets `study.yaml`, `runs.parquet`, `scores.parquet`, `items.parquet` and `captures/`. Tables of
    another study in `out` are replaced at the end.

    Raises:
        StudyError: the specification does not fit, or jobs failed; results of others stay in the store.
        OutputError: `out` holds something that is not a study, or is inside the store.
    """
    check_separate(out, store)
    plan = plan or plan_study(spec, store)
    config = {"spec": spec.model_dump(mode="json"), "jobs": [job.key for job in plan.jobs]}
    remove_abandoned(out, out.parent)  # of a process that was killed while it replaced an older study
    _check_foreign_files(out)
    if is_complete(out, config_hash("study", **config), replaced_kind="study"):
        return Study(out)
    _raise_failures(plan.jobs, executor(plan.jobs, store, progress))

    def build(staging: Path) -> None:
        if (out / MANIFEST).exists():
            LOGGER.warning(
                "the tables of another study in %s are replaced; its runs stay in %s", out, store.root
            )
        (staging / "study.yaml").write_text(spec.to_yaml(), encoding="utf-8")
        _gather(plan.runs, store, staging)

    with store.lock(f"out-{config_hash('study', out=str(out.absolute()))}", wait=True):
        _check_foreign_files(out)
        metadata = {"jobs": len(plan.jobs)}
        return create_or_load(out, "study", config, build, Study, metadata=metadata, overwrite=True)


def _raise_failures(jobs: Sequence[Job], failures: Mapping[str, Outcome]) -> None:
    if not failures:
        return
    key = next(iter(failures))
    first = next(job for job in jobs if job.key == key)
    message = f"{len(failures)} of {len(jobs)} jobs failed, first {first}: {failures[key].reason}"
    if any(outcome.is_bug for outcome in failures.values()):
        raise RuntimeError(message)
    raise StudyError(f"{message}; correct the study and start it again")


def check_separate(out: Path, store: Store) -> None:
    """Raise an OutputError if the tables of a study or the store of finished runs is inside the other."""
    # `resolve` fails at link loops
    first, second = (Path(os.path.realpath(path)) for path in (out, store.root))
    if first.is_relative_to(second) or second.is_relative_to(first):
        raise OutputError(
            f"output {out} and the store of finished runs {store.root} are inside one another; "
            "choose another output directory"
        )


def _check_foreign_files(out: Path) -> None:
    """Raise an OutputError if a study in `out` cannot be replaced without the loss of files not its own."""
    manifest = read_manifest(out, check_version=False) if out.is_dir() else None
    if manifest is None:
        return
    hint = "move it, or choose another output directory"
    own = {MANIFEST, *manifest["files"]}
    if index := FigureIndex.read(out / FIGURES, hint):
        own |= {f"{FIGURES}/{name}" for name in (INDEX, *index.files, *index.others)}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out)
        is_directory = path.is_dir() and not path.is_symlink()
        if not is_directory and name.as_posix() not in own:
            raise OutputError(f"output {out} holds a file that is not the study's ({name}); {hint}")


def _gather(runs: Sequence[Run], store: Store, directory: Path) -> None:
    """Write all tables of all runs; every row has the grid, labels and seed of its run."""
    frames: dict[str, list[pd.DataFrame]] = {}
    arrays: dict[str, dict[str, xr.Dataset]] = {file: {} for file in ARRAYS}
    for run in runs:
        labels = {key: str(value) for key, value in run.labels.items()}
        keys: dict[str, Any] = {"grid": run.grid, "run": run.name, **labels, "seed": run.seed}
        trigger = {"trigger": run.trigger.text, "trigger_placement": run.trigger.placement}
        row = keys | {"role": run.role, "benchmark": run.benchmark} | trigger
        frames.setdefault("runs", []).append(pd.DataFrame([row]))
        for name, job in run.evaluations.items():
            path = store.verified_path(job)
            for table in ("scores", "items"):
                frame = _read_table(path / f"{table}.parquet", keys | {"evaluation": name})
                frames.setdefault(table, []).append(frame)
        for name, job in run.captures.items():
            path = store.verified_path(job)
            row = keys | {"role": run.role, "capture": name, "job": job.key}
            for table in TABLES:
                frame = _read_table(path / f"{table}.parquet", row)
                frames.setdefault(f"captures/{table}", []).append(frame)
            for file in ARRAYS:
                if job.key not in arrays[file]:
                    arrays[file][job.key] = load_netcdf(path / f"{file}.nc")
    (directory / "captures").mkdir()
    for table, parts in frames.items():
        pd.concat(parts, ignore_index=True).to_parquet(directory / f"{table}.parquet", index=False)
    for file, variable in ARRAYS.items():
        if arrays[file]:
            write_netcdf(arrays[file], directory / "captures" / f"{file}.nc", {variable: {"zlib": True}})


def _read_table(path: Path, columns: Mapping[str, Any]) -> pd.DataFrame:
    """A table with constant columns in front, in place of its own of these names and of `model`."""
    table = pd.read_parquet(path).drop(columns=["model", *columns], errors="ignore")
    return pd.concat([pd.DataFrame(dict(columns), index=table.index), table], axis=1)


class Study:
    """A finished study, read from its directory.

    Raises:
        StudyError: the directory has none.
        OutputError: a file of it was changed, or another version of sinkscope wrote it.
    """

    def __init__(self, directory: Path) -> None:
        manifest = read_manifest(directory) if directory.is_dir() else None
        if manifest is None or manifest.get("kind") != "study":
            raise StudyError(
                f"{directory} holds no finished study (no {MANIFEST} of one); make it with `sinkscope study`"
            )
        verify(directory, manifest)
        self.directory = directory
        self.identity: str = manifest["identity"]
        self.spec = Spec.read(directory / "study.yaml")
        self._tables: dict[str, pd.DataFrame] = {}

    def table(self, name: str) -> pd.DataFrame:
        """`runs`, `scores`, `items`, or of captures `attention`, `maps`, `span_mass`, `top1`, `passage`.

        Raises:
            StudyError: the study has no such table.
            OutputError: it cannot be read.
        """
        if name not in self._tables:
            path = (self.directory / "captures" if name in TABLES else self.directory) / f"{name}.parquet"
            if not path.is_file():
                raise StudyError(
                    f"study {self.directory} has no table {name}; ask for it in the specification"
                )
            with wrap_read_errors(path):
                self._tables[name] = read_parquet(path)
        return self._tables[name]

    def norms(self, job: str) -> xr.DataArray:
        """Value norms of one capture (column `job`): condition × passage × layer × kv_head × position.

        Raises:
            StudyError: the study has no such capture.
        """
        return self._array("norms", job)

    def patterns(self, job: str) -> xr.DataArray:
        """Mean attention maps of one capture: placement × condition × layer × head × query × key.

        Queries and keys are in bins of `attrs["bin"]` tokens; raises as `norms`.
        """
        return self._array("patterns", job)

    def _array(self, file: str, job: str) -> xr.DataArray:
        try:
            return load_array(self.directory / "captures" / f"{file}.nc", ARRAYS[file], job)
        except (OSError, KeyError) as error:
            raise StudyError(
                f"study {self.directory} has no {file} of {job}; ask for a capture in the specification"
            ) from error
