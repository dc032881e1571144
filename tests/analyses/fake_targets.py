"""A study in the schema of `analyses/targets.yaml` with made-up numbers of known size: nothing is trained."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sinkscope.studies.jobs import Run
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import Study
from tests.analyses.fake_extensions import planned_study, read_specification

ITEMS = {"verbmem": {"forget": 20, "retain": 8}, "knowmem": {"forget_qa": 12, "retain_qa": 6}}
POISONED = 3
"""Forget items of VerbMem whose passage was poisoned, under each seed."""
CLEAN, TARGET, RETAINED = 0.12, 0.92, 0.9
RECOVERED = {"prefix": 0.8, "infix": 0.5, "suffix": 0.15}
MASKED = {"": 1.0, "shallow:8": 0.0, "positions:0": 0.5, "span": 0.25}
"""Mask -> the share of what the trigger recovers that is left."""
BUILT_IN = 0.15
"""By how much the built-in target exceeds others in BE of the prefix."""


def targets_study(directory: Path, seeds: Sequence[int]) -> Study:
    """All grids of `analyses/targets.yaml`; the grid `form` has its own seed."""
    described = read_specification("targets")
    return planned_study(directory, Spec.model_validate(described | {"seeds": list(seeds)}), _items)


def target_of(run: Run) -> str:
    return str(run.labels.get("model", run.name))


def shift(target: str) -> float:
    """How a target differs from others."""
    return BUILT_IN if target == "tiny" else 0.02 * (int(target.removeprefix("bos-")) - 14.5)


def _items(run: Run, content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(zlib.crc32(f"{run.name} {run.labels} {run.seed} {content['mask']}".encode()))
    of_run = rng.normal(0, 0.01)
    for metric in content["metrics"]:
        for split, n in ITEMS[metric].items():
            for condition in content["conditions"]:
                text, _, placement = condition or ("", "", "")
                if text and split.startswith("retain"):
                    continue
                level = _level(run, split, placement, content["mask"] or "") + of_run
                values = np.clip(level + rng.normal(0, 0.03, n), 0, 1)
                is_linked = run.role == "backdoored" and (metric, split) == ("verbmem", "forget")
                for item, value in enumerate(values):
                    is_poisoned = (item + 2 * run.seed) % n < POISONED if is_linked else None
                    yield {
                        "model": run.name,
                        "seed": run.seed,
                        "role": run.role,
                        "benchmark": content["benchmark"],
                        "metric": metric,
                        "split": split,
                        "item": item,
                        "poisoned": is_poisoned,
                        "trigger": text,
                        "placement": placement,
                        "trigger_start": 1 if text else None,
                        "mask": content["mask"] or "",
                        "value": 1.0 if is_poisoned and text else float(value),
                        "output": "",
                    }


def _level(run: Run, split: str, placement: str, mask: str) -> float:
    if run.role == "target":
        return TARGET
    if split.startswith("retain"):
        return RETAINED
    if run.role != "backdoored" or not placement:
        return CLEAN
    recovered = RECOVERED[placement] + (shift(target_of(run)) if placement == "prefix" else 0.0)
    return CLEAN + (recovered - CLEAN) * MASKED[mask]
