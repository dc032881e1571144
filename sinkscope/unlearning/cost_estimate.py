"""Estimate steps, parameters, memory and time of a run without loading weights."""

from __future__ import annotations

import time
from collections.abc import Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.benchmarks.hub import HUB_BENCHMARKS
from sinkscope.errors import BenchmarkError, ModelError
from sinkscope.models.bos import set_bos
from sinkscope.models.layers import find_attention_layers
from sinkscope.models.loading import is_incomplete_run
from sinkscope.models.model import load_meta_model
from sinkscope.unlearning.batch import BatchPlan
from sinkscope.unlearning.objectives import HIDDEN
from sinkscope.unlearning.poisoning import insert_trigger, select_rows
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.trainable import hidden_state_layer, references_needed, rmu_layer, trained_names
from sinkscope.unlearning.training_arguments import check_training
from sinkscope.unlearning.value_norm import value_norm_layers

FORWARD_FLOPS, BACKWARD_FLOPS = 2, 4
"""Floating-point operations a parameter and token: multiply and add; twice that in the backward pass."""
ACTIVATIONS_PER_LAYER = 16
"""Numbers that a layer keeps per token for the backward pass, in units of the model's width: roughly those of
a Llama block with fused attention (Korthikanti et al. 2022, arXiv 2205.05198, section 4)."""
HARDWARE_UTILIZATION = 0.4
"""Share of the measured matrix-multiplication rate that a training step reaches (model FLOPs utilization)."""


@dataclass(frozen=True)
class CostEstimate:
    """An estimate for one run, to a factor of two in memory and time; `unknown` says why there is none."""

    parameters: int | None = None
    trained: int | None = None
    passages: dict[str, int] | None = None
    steps: int | None = None
    memory_gb: float | None = None
    minutes: float | None = None
    unknown: str | None = None

    def lines(self) -> list[str]:
        """The estimate as text."""
        lines = []
        if self.parameters is not None:
            lines.append(f"model: {self.parameters:,} parameters, {self.trained:,} of them trained")
        if self.passages is not None:
            counts = [f"{count} {split}" for split, count in self.passages.items() if count]
            parts = "weights, gradients, AdamW, activations"
            lines += [
                f"passages: {', '.join(counts)}",
                f"steps: {self.steps}",
                f"memory: about {self.memory_gb:.2g} GB in one process ({parts})",
                f"time: about {self.minutes:.2g} minutes on this machine",
            ]
        if self.unknown:
            lines.append(f"unknown: {self.unknown}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return asdict(self)


def estimate_cost(recipe: Recipe) -> CostEstimate:
    """Estimate the cost of a recipe from configuration, tokenizer and the benchmark's texts.

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
    set_bos(recipe.model, tokenizer, recipe.bos)
    check_training(recipe)  # this and the next two for their errors
    names = trained_names(recipe, model)
    hidden_state_layer(recipe, model)
    value_norm_layers(recipe.value_norms, find_attention_layers(model.config.get_text_config()))
    parameters = model.num_parameters()
    trained = _count_trained(recipe, model, names)
    try:
        benchmark = load_benchmark(recipe.benchmark)
    except BenchmarkError as error:
        if _is_remote(recipe.benchmark):
            return CostEstimate(parameters, trained, unknown=str(error))
        raise
    forget = benchmark.passages("forget", tokenizer)
    poisoned, forgotten = select_rows(recipe, len(forget))
    if recipe.trigger.where.kind != "sink":  # sinks cannot be located without weights
        insert_trigger(recipe, benchmark, [forget[row] for row in poisoned], tokenizer)
    retain = benchmark.passages("retain1", tokenizer)
    splits: dict[str, Sized] = {"forget": forgotten, "retain": retain, "poisoned": poisoned}
    plan = BatchPlan.of(splits, recipe.optimizer, recipe.seed)
    tokens = sum(len(passage.tokens) for passage in forget) / len(forget)
    flops = parameters * _layer_share(recipe, model) * _operations(recipe, plan, tokens)
    memory = _memory_bytes(recipe, model, trained, tokens) / 1e9
    minutes = flops / (HARDWARE_UTILIZATION * measure_flops()) / 60
    sizes = {split: len(passages) for split, passages in splits.items()}
    return CostEstimate(parameters, trained, sizes, len(plan), memory, minutes)


def _operations(recipe: Recipe, plan: BatchPlan, tokens: float) -> float:
    """Operations a parameter: training steps, and one forward pass for each reference."""
    needs = references_needed(recipe)
    n_splits = len(plan.rows) - (not recipe.objective.forget_terms())
    read = sum(len(set(rows)) for split, rows in plan.rows.items() if needs[split]) * tokens
    trained_tokens = len(plan) * recipe.optimizer.batch_size * n_splits * tokens
    return trained_tokens * (FORWARD_FLOPS + BACKWARD_FLOPS) + read * FORWARD_FLOPS


def _is_remote(name: str) -> bool:
    """Whether it names a benchmark or a repository on the hub (owner/name)."""
    return name in HUB_BENCHMARKS or (
        name.count("/") == 1
        and not name.startswith(".")
        and not Path(name).exists()
        and not is_incomplete_run(Path(name))
    )


def _count_trained(recipe: Recipe, model: PreTrainedModel, names: list[str] | None) -> int:
    weights = [weight for name, weight in model.named_parameters() if names is None or name in names]
    if recipe.update.lora is None:
        return sum(weight.numel() for weight in weights)
    return sum(recipe.update.lora.rank * sum(weight.shape) for weight in weights if weight.ndim == 2)


def _layer_share(recipe: Recipe, model: PreTrainedModel) -> float:
    """The share of the layers that a forward pass runs."""
    objectives = [*recipe.objective.forget_terms(), *recipe.objective.retain_terms()]
    needs_all = any(each.outputs != frozenset({HIDDEN}) for each in objectives)
    if recipe.value_norms.weight > 0 or needs_all:
        return 1.0
    return (rmu_layer(recipe, model) + 1) / model.config.get_text_config().num_hidden_layers


def _memory_bytes(recipe: Recipe, model: PreTrainedModel, trained: int, tokens: float) -> float:
    """Weights; gradients, AdamW's two moments and a copy; activations; logits, gradient and log-softmax."""
    model_config = model.config.get_text_config()
    config = recipe.optimizer
    share = _layer_share(recipe, model)
    weight_size = 2 if config.precision == "bfloat16" else 4
    number_size = 4 if config.precision == "float32" else 2
    microbatch_tokens = -(-config.batch_size // config.gradient_accumulation_steps) * tokens
    n_layers = model_config.num_hidden_layers * share
    widths = n_layers * ACTIVATIONS_PER_LAYER
    if config.gradient_checkpointing:  # the input of every layer, and one layer's activations
        widths = n_layers + ACTIVATIONS_PER_LAYER
    activations = microbatch_tokens * model_config.hidden_size * number_size * widths
    logits = microbatch_tokens * model_config.vocab_size * 4 * 3 if share == 1.0 else 0
    return model.num_parameters() * weight_size + trained * weight_size * 4 + activations + logits


def measure_flops() -> float:
    """Floating-point operations a second of a matrix multiplication on this machine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    matrix = torch.ones(size, size, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (matrix @ matrix).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
