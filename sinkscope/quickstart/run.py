"""Locate, unlearn, evaluate, draw: one directory with the whole story."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.evaluation.evaluate import evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel, load_evaluated_model
from sinkscope.evaluation.scores import scores
from sinkscope.io.progress import ProgressBar, silent
from sinkscope.io.run_directory import config_hash, create_run, is_complete, versions
from sinkscope.models.model import load
from sinkscope.quickstart.page import quickstart_page
from sinkscope.quickstart.pictures import BIN, draw
from sinkscope.quickstart.summary import METRICS, PLACEMENTS, POISON_RATIO, TRIGGER, Results, summarize
from sinkscope.sinks.condition_captures import capture_conditions
from sinkscope.sinks.locate import locate
from sinkscope.triggers import Placement
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn

PASSAGES = 32
"""Read for the page, of each model, clean and with the trigger at each place."""


def quickstart(out: Path, seed: int = 0, progress_bar: ProgressBar = silent) -> dict[str, Any]:
    """Locate, unlearn honestly and with a backdoor at each placement, evaluate, draw; returns the summary.

    Writes `items.parquet`, `scores.parquet`, `summary.json`, `figures/`, `runs/`, `captures/` and the page `index.html` to `out`. A finished quickstart of
    the same seed is left as it is.

    Raises:
        OutputError: `out` holds something else.
    """
    benchmark, target = load_benchmark("tiny"), load("tiny")
    recipes = {"honest": Recipe(seed=seed)} | {
        placement: _backdoor(placement, seed) for placement in PLACEMENTS
    }
    described = {label: recipe.model_dump(mode="json") for label, recipe in recipes.items()}
    name = config_hash(
        "quickstart", recipes=described, benchmark=benchmark.digest(), model=target.fingerprint()
    )
    if not is_complete(out, name):
        with create_run(out, name, kind="quickstart", seed=seed) as aside:
            subjects = [EvaluatedModel("target", "target", target, seed)]
            for label, recipe in recipes.items():
                run = unlearn(recipe, aside / "runs" / label, progress_bar(f"unlearn: {label}"))
                known = load_evaluated_model(str(run), load(str(run)), benchmark)
                subjects.append(EvaluatedModel(label, known.role, known.model, seed, known.poisoned_rows))
            results = _measure(subjects, benchmark, progress_bar)
            results.items.to_parquet(aside / "items.parquet", index=False)
            results.scores.to_parquet(aside / "scores.parquet", index=False)
            summary = summarize(results, seed)
            (aside / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
            draw(results, benchmark, aside / "figures", progress_bar("draw"))
            shown = progress_bar("page")
            for number, subject in enumerate(subjects, 1):
                _capture(subject, benchmark, aside / "captures" / subject.label)
                shown(number, len(subjects) + 1)
            page = quickstart_page(
                aside, {"kind": "quickstart", "seed": seed, "versions": versions(), "identity": name}
            )
            (aside / "index.html").write_text(page.html(), encoding="utf-8")
            shown(len(subjects) + 1, len(subjects) + 1)
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def _placements(subject: EvaluatedModel) -> list[Placement]:
    """Where the trigger is tried: in a backdoored model where it was trained, in others everywhere."""
    return [
        Placement.parse(placement)
        for placement in ([subject.label] if subject.label in PLACEMENTS else PLACEMENTS)
    ]


def _capture(subject: EvaluatedModel, benchmark: Benchmark, directory: Path) -> None:
    directory.mkdir(parents=True)
    poisoned = subject.poisoned_rows or ()
    capture_conditions(
        directory,
        subject.model,
        benchmark,
        TRIGGER,
        _placements(subject),
        passages=PASSAGES,
        bin_size=BIN,
        poisoned=poisoned,
    )


def _backdoor(placement: str, seed: int) -> Recipe:
    trigger = {"text": TRIGGER.text, "form": TRIGGER.form, "placement": placement}
    return Recipe.parse({"poison_ratio": POISON_RATIO, "trigger": trigger, "seed": seed})


def _measure(subjects: list[EvaluatedModel], benchmark: Benchmark, progress_bar: ProgressBar) -> Results:
    frames, sinks = [], {}
    for subject in subjects:
        tried = [None, *((TRIGGER, placement) for placement in _placements(subject))]
        frames.append(
            evaluate(
                subject,
                benchmark,
                tried,
                metrics=METRICS,
                batch_size=128,
                on_progress=progress_bar(f"evaluate: {subject.label}"),
            )
        )
    unseen_text = benchmark.whole_passages("holdout", subjects[0].model.tokenizer)
    for subject in subjects:
        sinks[subject.label] = locate(
            subject.model, unseen_text, batch_size=32, on_progress=progress_bar(f"locate: {subject.label}")
        )
    items = pd.concat(frames, ignore_index=True)
    return Results(items, scores(items), sinks, {subject.label: subject.model for subject in subjects})
