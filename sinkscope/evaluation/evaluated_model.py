"""A model under evaluation and its role in the experiment."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.config import read_yaml
from sinkscope.errors import BenchmarkError, OutputError
from sinkscope.io.run_directory import read_manifest, wrap_read_errors
from sinkscope.io.tables import read_parquet
from sinkscope.models.loading import BUILT_IN
from sinkscope.models.model import Model

LOGGER = logging.getLogger("sinkscope")
REMAKE = "remove it and run unlearn again"
Role = Literal["target", "unlearned", "backdoored", "retain", "other"]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with its label and role, the seed of its run, and the forget passages that were poisoned.

    `poisoned_rows` is None if unknown, as for models of other tools or trained on another benchmark; clean
    runs have an empty list.
    """

    label: str
    role: Role
    model: Model
    seed: int = 0
    poisoned_rows: Sequence[int] | None = None


def default_benchmark(name: str) -> str:
    """The benchmark of a built-in model, or the one that a run of `unlearn` was trained on.

    Raises:
        BenchmarkError: it is another model, which has none.
        OutputError: the files of the run directory are missing or damaged.
    """
    if name in BUILT_IN:
        return BUILT_IN[name][0]
    manifest = _read_unlearn_manifest(Path(name))
    if manifest is None:
        raise BenchmarkError(
            f"model {name!r} has no benchmark of its own (only a run of unlearn has); give `benchmark`: a "
            "name, as tiny, or a directory"
        )
    return _trained_on(Path(name))


def _read_unlearn_manifest(directory: Path) -> dict[str, Any] | None:
    """None if it is no directory of an unlearning run."""
    manifest = read_manifest(directory) if directory.is_dir() else None
    return manifest if manifest is not None and manifest["kind"] == "unlearn" else None


def _trained_on(directory: Path) -> str:
    with wrap_read_errors(directory, REMAKE):
        return read_yaml(directory / "recipe.yaml", "recipe", OutputError)["benchmark"]


def load_evaluated_model(name: str, model: Model, benchmark: Benchmark | None) -> EvaluatedModel:
    """Label a loaded model by its name: a built-in model, a run directory of `unlearn`, or any other.

    Args:
        benchmark: the benchmark with all of its items; poisoned rows are known if the run was trained on it.

    Raises:
        OutputError: files of the run directory are missing or damaged.
    """
    if name in BUILT_IN:
        return EvaluatedModel(name, "retain" if BUILT_IN[name][1] == "retrained" else "target", model)
    directory = Path(name)
    manifest = _read_unlearn_manifest(directory)
    if manifest is None:
        return EvaluatedModel(name if directory.exists() else model.label, "other", model)
    with wrap_read_errors(directory, REMAKE):
        rows = read_parquet(directory / "poisoned.parquet")["row"].tolist()
        seed = int(manifest["seed"])
    trained_on = _trained_on(directory)
    # compared by content, as the path of a benchmark can be written in several ways
    is_same = benchmark is not None and (
        replace(benchmark, name=trained_on).content_hash() == manifest.get("benchmark")
    )
    if benchmark is not None and not is_same:
        LOGGER.warning(
            "run %s was trained on benchmark %s, and is scored on %s; which items were poisoned is unknown",
            *(name, trained_on, benchmark.name),
        )
    return EvaluatedModel(name, "backdoored" if rows else "unlearned", model, seed, rows if is_same else None)
