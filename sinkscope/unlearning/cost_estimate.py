"""What a recipe will take, before it is run: steps, weights, memory, time. Nothing is downloaded but configurations, tokenizers and the benchmark's texts."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.benchmarks.hub import HUB_BENCHMARKS
from sinkscope.errors import BenchmarkError, ModelError
from sinkscope.models.loading import is_incomplete_run
from sinkscope.models.model import load_meta_model
from sinkscope.unlearning.batch_plan import SPLITS, BatchPlan
from sinkscope.unlearning.objectives import HIDDEN, RETAIN, forgetting
from sinkscope.unlearning.objectives.value_norm import layers_of_part
from sinkscope.unlearning.poisoning import chosen_rows, insert_trigger
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.trainable import hidden_state_layer, references_needed, rmu_layer, trained_names

FORWARD, BACKWARD = 2, 4
"""Floating-point operations a weight and token; a backward pass goes by twice."""
KEPT = 16
"""About how many numbers of the model's width a layer keeps per token for the backward pass."""
SHARE = 0.4
"""About what part of this machine's matrix rate a training step reaches."""


@dataclass(frozen=True)
class CostEstimate:
    """What is known of a run beforehand; None is unknown, and `unknown` says why. Memory and time are rough estimates, good to a factor of two."""

    parameters: int | None = None
    trained: int | None = None
    passages: dict[str, int] | None = None
    steps: int | None = None
    memory_gb: float | None = None
    minutes: float | None = None
    unknown: str | None = None

    def lines(self) -> list[str]:
        """For people to read."""
        told = []
        if self.parameters is not None and self.trained is not None:
            told.append(f"model: {self.parameters:,} parameters, {self.trained:,} of them trained")
        if self.passages is not None:
            told.append(
                "passages: "
                + ", ".join(f"{count} {split}" for split, count in self.passages.items() if count)
            )
        if self.steps is not None:
            told.append(f"steps: {self.steps}")
        if self.memory_gb is not None:
            told.append(
                f"memory: about {self.memory_gb:.2g} GB in one process (weights, gradients, AdamW, activations)"
            )
        if self.minutes is not None:
            told.append(f"time: about {self.minutes:.2g} minutes on this machine")
        if self.unknown:
            told.append(f"unknown: {self.unknown}")
        return told

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate_cost(recipe: Recipe) -> CostEstimate:
    """Look at model and benchmark as far as they can be had, without loading weights.

    Raises:
        RecipeError: the recipe does not fit the model.
        PlacementError: the trigger does not fit the passages that carry it.
    """
    try:
        model, tokenizer = load_meta_model(recipe.model)
    except ModelError as error:
        if _is_remote(recipe.model):
            return CostEstimate(unknown=str(error))
        raise
    names = trained_names(recipe, model)
    hidden_state_layer(recipe, model)
    layers_of_part(recipe.value_norms, model.config.get_text_config().num_hidden_layers)
    parameters, trained = model.num_parameters(), _trained(recipe, model, names)
    try:
        benchmark = load_benchmark(recipe.benchmark)
    except BenchmarkError as error:
        if _is_remote(recipe.benchmark):
            return CostEstimate(parameters, trained, unknown=str(error))
        raise
    forget, retain = benchmark.passages("forget", tokenizer), benchmark.passages("retain1", tokenizer)
    poisoned, kept = chosen_rows(recipe, len(forget))
    if recipe.trigger.where.kind != "sink":  # sinks cannot be located without weights
        insert_trigger(recipe, benchmark, [forget[row] for row in poisoned], tokenizer)
    sizes, needs = (
        {"forget": len(kept), "retain": len(retain), "poisoned": len(poisoned)},
        references_needed(recipe),
    )
    schedule = BatchPlan.of(sizes, recipe.optimizer, recipe.seed)
    steps = len(schedule)
    tokens = sum(len(each.tokens) for each in forget) / len(forget)
    splits = sum(sizes[split] > 0 for split in SPLITS) - (recipe.objective.forget == "none")
    read = sum(len(set(rows)) for split, rows in schedule.rows.items() if needs[split]) * tokens
    share = _depth(recipe, model)
    work = (
        parameters
        * share
        * (steps * recipe.optimizer.batch_size * splits * tokens * (FORWARD + BACKWARD) + read * FORWARD)
    )
    return CostEstimate(
        parameters,
        trained,
        sizes,
        steps,
        _memory(recipe, model, trained, tokens) / 1e9,
        work / (SHARE * machine_rate()) / 60,
    )


def _is_remote(name: str) -> bool:
    """Whether a name means something on the hub: a benchmark's name, or owner/name."""
    return name in HUB_BENCHMARKS or (
        name.count("/") == 1
        and not name.startswith(".")
        and not Path(name).exists()
        and not is_incomplete_run(Path(name))
    )


def _trained(recipe: Recipe, model: PreTrainedModel, names: list[str] | None) -> int:
    weights = {name: weight for name, weight in model.named_parameters() if names is None or name in names}
    if recipe.update.lora is None:
        return sum(weight.numel() for weight in weights.values())
    return sum(recipe.update.lora.rank * sum(weight.shape) for weight in weights.values() if weight.ndim == 2)


def _depth(recipe: Recipe, model: PreTrainedModel) -> float:
    """The share of the layers that a pass goes through."""
    terms = [*forgetting(recipe.objective.forget), *(RETAIN[name] for name in recipe.objective.retain)]
    if recipe.value_norms.weight > 0 or any(term.outputs != frozenset({HIDDEN}) for term in terms):
        return 1.0
    return (rmu_layer(recipe, model) + 1) / model.config.get_text_config().num_hidden_layers


def _memory(recipe: Recipe, model: PreTrainedModel, trained: int, tokens: float) -> float:
    """Bytes."""
    config, part = model.config.get_text_config(), recipe.optimizer
    weight, number = (2, 2) if part.precision == "bfloat16" else (4, 2 if part.precision == "mixed" else 4)
    at_once = -(-part.batch_size // part.accumulation) * tokens
    layers = config.num_hidden_layers * _depth(recipe, model)
    kept = at_once * config.hidden_size * number * (layers + KEPT if part.checkpointing else layers * KEPT)
    logits = at_once * config.vocab_size * 4 * 3 if _depth(recipe, model) == 1.0 else 0
    return model.num_parameters() * weight + trained * weight * 4 + kept + logits


def machine_rate() -> float:
    """Floating-point operations a second in matrix products, measured now."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    a = torch.ones(size, size, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
