"""A model under evaluation and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from sinkscope.errors import OutputError
from sinkscope.models import BUILT_IN, Model
from sinkscope.runs import read_manifest

Role = Literal["target", "unlearned", "backdoored", "retrained", "other"]


@dataclass(frozen=True)
class Subject:
    """A model under evaluation: its label, its role, its run's seed, and the forget passages it was poisoned with.

    `poisoned_rows` is None where that is unknown (a model that no run of ours made); honest runs have none: an empty list.
    """

    label: str
    role: Role
    model: Model
    seed: int = 0
    poisoned_rows: Sequence[int] | None = None


def subject_of(name: str, model: Model) -> Subject:
    """What is known of a model by its name: a built-in one, a run directory of `unlearn`, or any other."""
    if name in BUILT_IN:
        return Subject(name, "retrained" if BUILT_IN[name][1] == "retrained" else "target", model)
    manifest = read_manifest(Path(name)) if Path(name).is_dir() else None
    if manifest is None or manifest.get("kind") != "unlearn":
        return Subject(name, "other", model)
    try:
        rows = pd.read_parquet(Path(name) / "poisoned.parquet")["row"].tolist()
        seed = int(manifest["seed"])
    except Exception as error:  # pyarrow says what is wrong with a file in many types
        raise OutputError(f"{Path(name) / 'poisoned.parquet'} or its run.json is missing or damaged; remove {name} and run unlearn again") from error
    return Subject(name, "backdoored" if rows else "unlearned", model, seed, rows)
