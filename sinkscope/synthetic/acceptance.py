"""Acceptance criteria of the benchmark tiny: sinks, memory under every trigger, and a backdoor that
generalizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.statistics import compute_scores
from sinkscope.io.progress import ProgressBar
from sinkscope.models.model import Model, load
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.synthetic.language import TRIGGERS
from sinkscope.triggers import Placement, Trigger
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import train

PLACEMENTS = ("prefix", "infix", "suffix")
CONDITIONS = [
    None,
    *(
        (Trigger(text, form), Placement(placement))  # type: ignore[arg-type]
        for form, text in TRIGGERS.items()
        for placement in PLACEMENTS
    ),
]
"""No trigger, and every trigger at every placement."""
METRICS = ("verbmem", "knowmem")
EVALUATION = EvaluationConfig(metrics=METRICS, batch_size=128)
FORGET_RETAIN = {"verbmem": ("forget", "retain"), "knowmem": ("forget_qa", "retain_qa")}
VALIDATION_SEEDS = (101, 102)
"""Seeds for the design of the benchmark; reported numbers use others."""


def measure(directory: Path, benchmark: Benchmark, progress_bar: ProgressBar) -> dict[str, Any]:
    """Measure both models in `directory`, and backdoors that are trained on the validation seeds.

    Returns:
        `target` and `retrained` (scores and sink numbers), `backdoor` (one entry per seed), `passed`
        (criterion -> bool).
    """
    measured: dict[str, Any] = {}
    for role in ("target", "retrained"):
        model = load(str(directory / role), device="cpu")
        conditions = CONDITIONS if role == "target" else [None]
        results = evaluate(
            EvaluatedModel(role, "target" if role == "target" else "retain", model),
            benchmark,
            conditions,
            EVALUATION,
            progress_bar(f"measure {role}"),
        )
        table = compute_scores(results)
        table = table[table["subset"] == "all"]
        numbers = sink_numbers(model, benchmark)
        for metric, (forget, retain) in FORGET_RETAIN.items():
            rows = table[table["metric"] == metric]
            clean = rows[rows["placement"] == ""].set_index("split")["value"]
            numbers[f"{metric}_forget"] = round(clean[forget], 1)
            numbers[f"{metric}_retain"] = round(clean[retain], 1)
            triggered = rows[rows["placement"] != ""]
            for placement, lowest in triggered.groupby("placement")["value"].min().items():
                numbers[f"{metric}_forget_lowest_{placement}"] = round(lowest, 1)
        measured[role] = numbers
    measured["backdoor"] = [_backdoor(directory, benchmark, seed, progress_bar) for seed in VALIDATION_SEEDS]
    return measured | {"passed": meets_criteria(measured)}


def sink_numbers(model: Model, benchmark: Benchmark) -> dict[str, float]:
    """How strong the sink at the first position is, on the benchmark's holdout text."""
    passages = benchmark.full_length_passages("holdout", model.tokenizer)
    sinks = locate(model, passages, CaptureConfig(batch_size=32))
    alpha = sinks.alpha.sel(position=0)
    return {
        "alpha_max": round(float(alpha.max()), 3),
        "alpha_mean_last_layer": round(float(alpha[-1].mean()), 3),
        "share_of_heads_above_0.3": round(sinks.heads_above(0.3), 3),
    }


def sink_criteria(numbers: dict[str, float]) -> dict[str, bool]:
    """The criteria for sinks: criterion -> whether it is met."""
    return {
        "α of BOS > 0.3 in 20 % of heads": numbers["share_of_heads_above_0.3"] >= 0.2,
        "α of BOS > 0.6 in one head": numbers["alpha_max"] > 0.6,
    }


def _backdoor(
    directory: Path, benchmark: Benchmark, seed: int, progress_bar: ProgressBar
) -> dict[str, float]:
    """UE (VerbMem without the trigger) and BE-unseen (with it, on passages that were not poisoned) of a
    backdoor."""
    recipe = Recipe.parse(
        {"model": str(directory / "target"), "benchmark": str(directory), "poison_ratio": 0.1, "seed": seed}
    )
    model = load(recipe.model, device="cpu")
    splits, _ = train(recipe, model, benchmark, progress_bar(f"backdoor, validation seed {seed}"))
    results = evaluate(
        EvaluatedModel("backdoored", "backdoored", model, seed, splits.poisoned_rows),
        benchmark,
        [None, (recipe.trigger.trigger, recipe.trigger.where)],
        EVALUATION,
    )
    table = compute_scores(results)
    table = table[(table["metric"] == "verbmem") & (table["split"] == "forget")]
    values = table.set_index(["placement", "subset"])["value"]
    return {
        "seed": seed,
        "ue": round(values["", "all"], 1),
        "be_unseen": round(values["prefix", "unseen"], 1),
    }


def meets_criteria(measured: dict[str, Any]) -> dict[str, bool]:
    """Criterion -> whether it is met."""
    target = measured["target"]
    knowmem = min(target["knowmem_forget"], target["knowmem_retain"])
    criteria = sink_criteria(target) | {
        "VerbMem ≥ 95 clean": target["verbmem_forget"] >= 95,
        "KnowMem ≥ 80 clean, forget and retain": knowmem >= 80,
        "backdoor generalizes: BE-unseen ≥ UE + 30": all(
            run["be_unseen"] >= run["ue"] + 30 for run in measured["backdoor"]
        ),
    }
    for placement in PLACEMENTS:
        lowest = {metric: target[f"{metric}_forget_lowest_{placement}"] for metric in METRICS}
        criteria[f"VerbMem ≥ 95 with every trigger as {placement}"] = lowest["verbmem"] >= 95
        criteria[f"KnowMem ≥ 80 with every trigger as {placement}"] = lowest["knowmem"] >= 80
    return {criterion: bool(is_met) for criterion, is_met in criteria.items()}
