"""The training loop: one backward pass each for the forget, retain and poisoned passages of a step.

A batch that is divided over microbatches or processes has the gradient of the undivided batch, and a resumed
run ends with the same bits as one that was not interrupted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.benchmarks.chunking import Passage
from sinkscope.errors import RecipeError
from sinkscope.io.progress import OnProgress
from sinkscope.unlearning.batch import (
    Batch,
    BatchPlan,
    References,
    autocast,
    forward,
    mask_positions,
    split_into_microbatches,
)
from sinkscope.unlearning.checkpoints import Checkpoints, TrainerState, random_states
from sinkscope.unlearning.objectives import HIDDEN, LOGITS, Objective
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.sharding import SINGLE_PROCESS, World, full_tensor
from sinkscope.unlearning.trainable import hidden_state_layer
from sinkscope.unlearning.value_norm import ValueNormTerm

LOG_EVERY = 10
WEIGHTS = "the norm of the weights"


@dataclass(frozen=True)
class Term:
    """One objective on one split, with its weight in the loss and the arguments of its function."""

    objective: Objective
    weight: float
    arguments: dict[str, Any]


def forget_arguments(recipe: Recipe, model: PreTrainedModel) -> dict[str, Any]:
    """The arguments of the recipe's forget objective; empty for `none`."""
    arguments: dict[str, Any] = {}
    for objective in recipe.objective.forget_terms():
        d_model = model.config.get_text_config().hidden_size
        arguments |= objective.arguments(recipe.objective, d_model, recipe.seed)
    return arguments


@dataclass
class Trainer:
    """Minimizes ℓ_f(Df) + Σ γ ( ℓ_r(Dr) + ℓ_r(Dp) ) + λ ℓ_vn, with one graph alive at a time.

    Parameters without `requires_grad` are not changed. Each process of `world` computes its share of every
    batch; means are over the whole batch. `should_stop` is called with the number of finished steps after
    each one.
    """

    model: PreTrainedModel
    recipe: Recipe
    passages: Mapping[str, Sequence[Passage]]
    references: Mapping[str, References]
    value_norms: ValueNormTerm | None = None
    world: World = SINGLE_PROCESS
    should_stop: Callable[[int], bool] | None = None

    def __post_init__(self) -> None:
        objective = self.recipe.objective
        arguments = forget_arguments(self.recipe, self.model)
        forget = [Term(each, 1.0, arguments) for each in objective.forget_terms()]
        weights = objective.retain.values()
        retain = [Term(each, w, {}) for each, w in zip(objective.retain_terms(), weights, strict=True)]
        self._terms = {"forget": forget, "retain": retain, "poisoned": retain}
        self._layer = hidden_state_layer(self.recipe, self.model)
        self.weights = {
            name: weight for name, weight in self.model.named_parameters() if weight.requires_grad
        }
        self.plan = BatchPlan.of(self.passages, self.recipe.optimizer, self.recipe.seed)

    def run(
        self, checkpoints: Checkpoints | None = None, on_progress: OnProgress | None = None
    ) -> TrainerState:
        """Train to the end, from the newest checkpoint if there is one; logs the first and every tenth step.

        Raises:
            RecipeError: a term, the gradient or a weight became infinite or NaN.
        """
        optimizer = self._create_optimizer()
        uses_checkpointing = self.recipe.optimizer.gradient_checkpointing
        with torch.random.fork_rng(devices=[self.model.device] if self.model.device.type == "cuda" else []):
            torch.manual_seed(self.recipe.seed)
            state = checkpoints.resume(self.weights, optimizer) if checkpoints else TrainerState()
            self.model.train()
            if uses_checkpointing:
                kwargs = {"use_reentrant": False}
                self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
            try:
                self._run_steps(state, optimizer, checkpoints, on_progress)
            finally:
                if uses_checkpointing:
                    self.model.gradient_checkpointing_disable()
                self.model.eval()
                self.model.zero_grad(set_to_none=True)
        return state

    def _run_steps(
        self,
        state: TrainerState,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints | None,
        on_progress: OnProgress | None,
    ) -> None:
        start, n_steps = state.step, len(self.plan)
        epoch = max(1, n_steps // self.plan.epochs)
        while state.step < n_steps:
            save = None
            if checkpoints and state.step > start and state.step % (checkpoints.every or epoch) == 0:
                before = (copy.deepcopy(state), self.weights, optimizer, random_states())
                save = partial(checkpoints.save, *before)
            self._step(state, optimizer, save)
            if on_progress:
                on_progress(state.step, n_steps)
            if self.should_stop and self.world.broadcast(self.should_stop(state.step)):
                break
        norm = torch.nn.utils.get_total_norm(list(self.weights.values()))
        _check_finite(WEIGHTS, full_tensor(norm).item(), state.step)

    def _create_optimizer(self) -> torch.optim.Optimizer:
        config = self.recipe.optimizer
        matrices = [weight for weight in self.weights.values() if weight.ndim > 1]
        others = [weight for weight in self.weights.values() if weight.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)

    def _step(
        self, state: TrainerState, optimizer: torch.optim.Optimizer, save: Callable[[], None] | None
    ) -> None:
        """One step. `save` saves the state before it, once finite losses and gradients show it to be good."""
        state.step += 1
        is_logged = state.step == 1 or state.step % LOG_EVERY == 0
        split_norms: dict[str, float] = {}
        accumulated: dict[str, Tensor] = {}
        for split, rows in self.plan[state.step - 1].items():
            if not (self._terms[split] or self._value_norms_of(split)):
                continue
            for name, value in self._backward(split, rows, state.step).items():
                state.sums.setdefault(name, []).append(value)
            if is_logged:  # the gradient norm of every split is logged
                split_norms[f"gradient/{split}"] = self._gradient_norm()
                self._move_gradients(accumulated)
        for name, gradient in accumulated.items():
            self.weights[name].grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(
            list(self.weights.values()), self.recipe.optimizer.max_grad_norm
        )
        total_norm = full_tensor(norm).item()
        _check_finite("the gradient", total_norm, state.step)
        if save:
            save()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if is_logged:
            means = {name: sum(values) / len(values) for name, values in state.sums.items()}
            position = {"step": state.step, "epoch": round(self.plan.epoch(state.step), 4)}
            state.log.append(position | {"gradient": total_norm} | means | split_norms)
            state.sums = {}

    def _move_gradients(self, accumulated: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            if weight.grad is not None:
                accumulated[name] = accumulated[name] + weight.grad if name in accumulated else weight.grad
                weight.grad = None

    def _gradient_norm(self) -> float:
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        return full_tensor(torch.nn.utils.get_total_norm(gradients)).item()

    def _value_norms_of(self, split: str) -> ValueNormTerm | None:
        return self.value_norms if self.value_norms and split in self.value_norms.splits else None

    def _backward(self, split: str, rows: list[int], step: int) -> dict[str, float]:
        """Add the gradient of one split's loss over the batch `rows`; returns its terms."""
        full_batch = Batch.of(self.passages[split], rows)
        n = self.recipe.optimizer.gradient_accumulation_steps
        microbatches = split_into_microbatches(rows, self.world.size * n)
        names: list[str] = []
        sums = torch.zeros(0)
        for microbatch in microbatches[self.world.rank * n : (self.world.rank + 1) * n]:
            if not microbatch and self.world.size == 1:
                continue
            # an empty microbatch of a sharded model needs a pass, too: it is a collective operation
            batch = Batch.of(self.passages[split], microbatch or rows[:1]).to(self.model.device)
            terms = self._forward_backward(split, batch, full_batch, 1.0 if microbatch else 0.0)
            names = list(terms)
            values = torch.stack(list(terms.values())).detach().cpu().double()
            sums = values if not len(sums) else sums + values
        self.world.reduce(sums)
        losses = {f"{split}/{name}": value for name, value in zip(names, sums.tolist(), strict=True)}
        for name, value in losses.items():
            _check_finite(f"term {name}", value, step, " or the term's weight")
        return losses

    def _forward_backward(
        self, split: str, batch: Batch, full_batch: Batch, scale: float
    ) -> dict[str, Tensor]:
        """Forward and backward pass of one microbatch.

        Returns its terms, weighted so that those of all microbatches sum to the means over the full batch.
        """
        needs = frozenset().union(*(term.objective.outputs for term in self._terms[split]))
        value_norms = self._value_norms_of(split)
        with (
            mask_positions(self.model, self.recipe.masked_positions),
            value_norms.recording() if value_norms else nullcontext({}) as values,
        ):
            with autocast(self.model.device, self.recipe.optimizer.precision == "mixed"):
                outputs = forward(
                    self.model,
                    batch,
                    logits=LOGITS in needs,
                    layer=self._layer if HIDDEN in needs else None,
                    run_all_layers=value_norms is not None,
                )
            loss = torch.zeros((), device=batch.input_ids.device)
            terms: dict[str, Tensor] = {}
            for term in self._terms[split]:
                unit = term.objective.unit
                share = scale * batch.count(unit) / full_batch.count(unit)
                references = self.references.get(split)
                value = share * term.objective.loss(batch, outputs, references, **term.arguments)
                loss = loss + term.weight * value
                terms[term.objective.name] = value
            if value_norms:
                share = scale * batch.count("passages") / full_batch.count("passages")
                terms["value_norm"] = share * value_norms(split, batch, values)
                loss = loss + self.recipe.value_norms.weight * terms["value_norm"]
            (loss * self.world.size).backward()  # sharded gradients are averaged over processes
        return terms


def _check_finite(name: str, value: float, step: int, more_to_lower: str = "") -> None:
    if not math.isfinite(value):
        fix = f"lower optimizer.learning_rate{more_to_lower}"
        if step == 1 and name != WEIGHTS:  # no weight has changed yet
            fix = "check the model and the objective"
        raise RecipeError(f"recipe: {name} became {value} at step {step}, so the run was stopped; {fix}")
