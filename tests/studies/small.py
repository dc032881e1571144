"""Small specifications as dictionaries, and copies of a benchmark and a model that can be changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sinkscope.models.loading import data_directory
from sinkscope.studies.graph import expand_study
from sinkscope.studies.jobs import Run
from sinkscope.studies.spec import Spec

FEW = {"optimizer.epochs": 1, "optimizer.steps_per_epoch": 2, "optimizer.learning_rate": 1e-3}
"""Two steps that show."""

SMALL: dict[str, Any] = {
    "seeds": [0, 1],
    "evaluations": {"few": {"metrics": ["verbmem"], "limit": 3, "placements": ["own", "suffix"]}},
    "captures": {"heads": {"passages": 2, "placements": ["own", "suffix"]}},
    "grids": {
        "poisoned": {
            "set": FEW | {"trigger.text": "old road"},
            "axes": {"place": {"back": {"trigger.placement": "infix"}}},
            "evaluations": ["few"],
            "captures": ["heads"],
        },
        "perturbed": {"init_from": "poisoned", "perturbations": ["int8"], "evaluations": ["few"]},
        "unlearned": {"set": FEW | {"poison_ratio": 0}, "evaluations": ["few"], "compare_to": "unlearned"},
        "target": {"models": ["tiny"], "evaluations": ["few"]},
    },
}
KINDS = {"unlearn": 4, "perturb": 2, "evaluate": 7, "capture": 2, "diverge": 2}
JOBS = sum(KINDS.values())
"""How many jobs `SMALL` is, by kind and in all."""

ONE: dict[str, Any] = {
    "seeds": [0],
    "evaluations": SMALL["evaluations"],
    "grids": {"unlearned": {"set": FEW | {"poison_ratio": 0}, "evaluations": ["few"]}},
}

EVALUATIONS = {"few": {"metrics": ["verbmem"], "limit": 3}}


def runs(**values: Any) -> list[Run]:
    return expand_study(Spec.model_validate(values))


def of(grid: str, all_runs: list[Run]) -> list[Run]:
    return [run for run in all_runs if run.grid == grid]


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
