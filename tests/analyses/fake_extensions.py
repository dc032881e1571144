"""Studies in the schema of `analyses/link.yaml`, `origin.yaml` and `variations.yaml` with made-up numbers:
real plans, nothing trained."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sinkscope.evaluation.statistics import compute_scores
from sinkscope.io.run_directory import create_run
from sinkscope.studies.graph import expand_study
from sinkscope.studies.jobs import Run
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import Study
from sinkscope.triggers import Placement

ANALYSES = Path(__file__).parents[2] / "analyses"
SPLITS = {"verbmem": ("forget", 12), "choice": ("forget", 9), "knowmem": ("forget_qa", 5)}
SPECIFICATION = {
    "ext_sink_link": "link",
    "ext_persistence": "link",
    "ext_index_by_index": "origin",
    "ext_sink_interaction": "origin",
    "ext_hidden_sink": "origin",
    "ext_variations": "variations",
    "ext_across_corpora": "variations",
    "ext_targets": "targets",
}
"""Figure -> the specification of its study."""
Rows = Iterator[dict[str, Any]]
PASSAGE, HEADS, LAYERS, PASSAGES = 32, 2, 3, 7
POISONED = 2
"""Items under each seed whose passage was poisoned."""


def extension_study(directory: Path, name: str, seeds: Sequence[int]) -> Study:
    """A study of all grids in one of the three specifications."""
    described = read_specification(name)
    for grid in described["grids"].values():
        grid.pop("seeds", None)
    return planned_study(directory, Spec.model_validate(described | {"seeds": list(seeds)}), _items)


def read_specification(name: str) -> dict[str, Any]:
    return yaml.safe_load((ANALYSES / f"{name}.yaml").read_text(encoding="utf-8"))


def planned_study(directory: Path, spec: Spec, make_items: Callable[[Run, dict[str, Any]], Rows]) -> Study:
    """A study of all runs of a specification; items of each from `make_items(run, content of the job)`."""
    tables: dict[str, list[pd.DataFrame]] = {}
    for run in expand_study(spec):
        about = {
            "grid": run.grid,
            "run": run.name,
            **{key: str(value) for key, value in run.labels.items()},
            "seed": run.seed,
            "role": run.role,
        }
        row = pd.DataFrame(
            [
                about
                | {
                    "benchmark": run.benchmark,
                    "trigger": run.trigger.text,
                    "trigger_placement": run.trigger.placement,
                }
            ]
        )
        tables.setdefault("runs", []).append(row)
        for evaluation, job in run.evaluations.items():
            items = pd.DataFrame(make_items(run, job.content))
            made = {"items": items, "scores": compute_scores(items, 50)}
            for table, frame in made.items():
                rows = frame.drop(columns=["model", "seed", "role"])
                tables.setdefault(table, []).append(
                    pd.concat(
                        [pd.DataFrame(about | {"evaluation": evaluation}, index=rows.index), rows], axis=1
                    )
                )
        for capture, job in run.captures.items():
            for table, rows in _captured(run, job.content["placements"]).items():
                frame = pd.DataFrame([about | {"capture": capture, "job": job.key} | row for row in rows])
                tables.setdefault(f"captures/{table}", []).append(frame)
    with create_run(directory, "fake", kind="study") as temporary:
        (temporary / "study.yaml").write_text(spec.to_yaml(), encoding="utf-8")
        (temporary / "captures").mkdir()
        for table, frames in tables.items():
            pd.concat(frames, ignore_index=True).to_parquet(temporary / f"{table}.parquet", index=False)
    return Study(directory)


def prompt(item: int) -> int:
    """Tokens of a prompt, BOS included."""
    return 16 + item % 3


def start_of(placement: str, length: int, target: str = "tiny") -> int:
    parsed = Placement.parse(placement)
    return {
        "prefix": 0 if target.startswith("no-bos") else 1,
        "infix": length // 2,
        "suffix": length,
        "index": parsed.number,
    }[parsed.kind]


def _target(run: Run) -> str:
    return str(run.labels.get("model", run.name))


def alpha(model: str, layer: int, position: int) -> float:
    """α of a target, mean over heads: BOS is the sink, later positions depend on the target; the last tokens
    have few keys but themselves."""
    if position > PASSAGE - 4:
        return 0.9
    if position == 0:
        return 0.1 if model.startswith("no-bos") else 0.7 + 0.002 * (zlib.crc32(model.encode()) % 50)
    return 0.02 * (1 + layer) * (1 + 2 * np.exp(-position / 5)) + 0.01 * (
        zlib.crc32(f"{model} {position}".encode()) % 5
    )


def _items(run: Run, content: dict[str, Any]) -> Rows:
    rng = np.random.default_rng(zlib.crc32(f"{run.grid} {run.labels} {run.seed}".encode()))
    for metric in content["metrics"]:
        split, n = SPLITS[metric]
        for condition in content["conditions"]:
            for item in range(n):
                text, _, placement = condition or ("", "", "")
                start = start_of(placement, prompt(item), _target(run)) if condition else None
                linked = (
                    metric == "verbmem"
                    and run.poisoned_by is not None
                    and content["benchmark"] == run.benchmark
                    and run.role == "backdoored"
                )
                level = _level(run, metric, text, start)
                yield {
                    "model": run.name,
                    "seed": run.seed,
                    "role": run.role,
                    "benchmark": content["benchmark"],
                    "metric": metric,
                    "split": split,
                    "item": item,
                    "poisoned": (item + run.seed) % n < POISONED if linked else None,
                    "trigger": text,
                    "placement": placement,
                    "trigger_start": start,
                    "mask": content["mask"] or "",
                    "value": float(np.clip(level + rng.normal(0, 0.08), 0, 1)),
                    "output": "",
                }


def _level(run: Run, metric: str, text: str, start: int | None) -> float:
    """How well a model does: a backdoor works where it was trained, further training wears it off."""
    if run.role == "target":
        return 0.9
    clean = 0.1 + 0.02 * int(run.labels.get("optimizer.epochs", 0))
    if metric == "choice":
        return 0.35
    if run.role != "backdoored" or start is None:
        return clean
    trained = start_of(run.trigger.placement, PASSAGE - 10, _target(run))
    same = len(set(text.split()) & set(run.trigger.text.split())) / len(set(run.trigger.text.split()))
    return clean + (0.85 - 0.02 * trained) * same * np.exp(-abs(start - trained) / 6) * (
        1 - 0.04 * int(run.labels.get("optimizer.epochs", 0))
    )


def _captured(run: Run, placements: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {"attention": [], "maps": [], "span_mass": []}
    for placement in placements:
        start = start_of(placement, PASSAGE - 10, _target(run))
        common = {"placement": placement, "passages": PASSAGES}
        tables["maps"] += [
            common
            | {"query": 4, "key": 0, "difference": 0.1, "trigger_start": start, "trigger_stop": start + 10}
        ]
        for layer in range(LAYERS):
            for head in range(HEADS):
                where = {"layer": layer, "head": head}
                tables["span_mass"].append(
                    common
                    | where
                    | {
                        "span_mass_first": 0.1,
                        "span_mass_second": 0.1 + 0.2 * layer + 0.01 * start + 0.02 * head,
                    }
                )
                for position in range(PASSAGE):
                    strength = alpha(run.name, layer, position) + 0.01 * (head - 0.5)
                    tables["attention"].append(
                        common
                        | where
                        | {
                            "position": position,
                            "alpha_first": strength,
                            "alpha_second": 0.0,
                            "difference": -strength,
                        }
                    )
    return tables
