"""A model under evaluation and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.config import read_yaml
from sinkscope.errors import OutputError
from sinkscope.io.run_directory import read_manifest
from sinkscope.io.tables import read_parquet
from sinkscope.models.model import BUILT_IN, Model

Role = Literal["target", "unlearned", "backdoored", "retrained", "other"]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model under evaluation: its label, its role, its run's seed, and the forget passages it was poisoned with.

    `poisoned_rows` is None where that is unknown (a model that no run of ours made, or one that was trained on another benchmark); honest runs have none: an
    empty list.
    """

    label: str
    role: Role
    model: Model
    seed: int = 0
    poisoned_rows: Sequence[int] | None = None


def load_evaluated_model(name: str, model: Model, benchmark: Benchmark | None) -> EvaluatedModel:
    """What is known of a model by its name: a built-in one, a run directory of `unlearn`, or any other.

    Args:
        benchmark: the whole of what it is asked; rows of another benchmark's forget set say nothing of this one's.
    """
    if name in BUILT_IN:
        return EvaluatedModel(name, "retrained" if BUILT_IN[name][1] == "retrained" else "target", model)
    manifest = read_manifest(Path(name)) if Path(name).is_dir() else None
    if manifest is None or manifest.get("kind") != "unlearn":
        return EvaluatedModel(name, "other", model)
    try:
        rows = read_parquet(Path(name) / "poisoned.parquet")["row"].tolist()
        seed, trained_on = (
            int(manifest["seed"]),
            read_yaml(Path(name) / "recipe.yaml", "recipe", OutputError)["benchmark"],
        )
    except Exception as error:  # pyarrow says what is wrong with a file in many types
        raise OutputError(
            f"{Path(name) / 'poisoned.parquet'}, its recipe.yaml or its run.json is missing or damaged; remove {name} and run unlearn again"
        ) from error
    same = benchmark is not None and replace(benchmark, name=trained_on).content_hash() == manifest.get(
        "benchmark"
    )  # a directory can be named in several ways
    return EvaluatedModel(name, "backdoored" if rows else "unlearned", model, seed, rows if same else None)
