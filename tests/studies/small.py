"""What studies are made of here: specifications as dictionaries, and a benchmark and a model that can be changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sinkscope.models import data_directory
from sinkscope.studies.graph import Run, runs_of
from sinkscope.studies.spec import Spec

FEW = {"optimiser.epochs": 1, "optimiser.batches": 2, "optimiser.learning_rate": 1e-3}
"""Two steps that show."""


def runs(**values: Any) -> list[Run]:
    return runs_of(Spec.model_validate(values))


def given(directory: Path) -> dict[str, str]:
    """The built-in model and benchmark as directories of one's own."""
    shutil.copytree(data_directory() / "target", directory / "model")
    for config in ("raw", "knowmem", "verbmem", "privleak"):
        shutil.copytree(data_directory() / config, directory / "book" / config)
    shutil.copy(data_directory() / "benchmark.json", directory / "book")
    return {"model": str(directory / "model"), "benchmark": str(directory / "book")}


def change_a_record(book: Path, split: str) -> None:
    path = book / f"{split}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[-1])
    key = next(key for key, value in record.items() if isinstance(value, str))
    record[key] += " x"
    path.write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n", encoding="utf-8")
