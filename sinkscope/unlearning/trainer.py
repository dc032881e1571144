"""Unlearning on transformers' `Trainer`: one backward pass each for forget, retain and poisoned passages.

A batch that is divided over microbatches or processes has the gradient of the undivided batch, and a resumed
run ends with the same bits as one that was not interrupted.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sinkscope.benchmarks.chunking import Passage
from sinkscope.errors import RecipeError
from sinkscope.unlearning.batch import (
    Batch,
    BatchPlan,
    References,
    autocast,
    forward,
    mask_positions,
    split_into_microbatches,
)
from sinkscope.unlearning.checkpoints import Checkpoints, collect_state, random_states, restore_state
from sinkscope.unlearning.objectives import HIDDEN, LOGITS, Objective
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.sharding import full_tensor
from sinkscope.unlearning.trainable import hidden_state_layer
from sinkscope.unlearning.value_norm import ValueNormTerm

NORMS_EVERY = 10
"""Steps between two at which the gradient norm of every split is logged."""
WEIGHTS = "the norm of the weights"
LOSS = "loss"


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


class UnlearnTrainer(Trainer):
    """Minimizes ℓ_f(Df) + Σ γ ( ℓ_r(Dr) + ℓ_r(Dp) ) + λ ℓ_vn, with one graph alive at a time.

    Parameters without `requires_grad` are not changed. Each process computes its share of every batch; means
    are over the whole batch. Every step is logged.

    Args:
        references: outputs of the reference model, by split.
        checkpoints: to resume from and to add to.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe,
        passages: Mapping[str, Sequence[Passage]],
        references: Mapping[str, References],
        args: TrainingArguments,
        value_norms: ValueNormTerm | None = None,
        checkpoints: Checkpoints | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.recipe = recipe
        self.passages = passages
        self.plan = BatchPlan.of(passages, recipe.optimizer, recipe.seed)
        self.references = references
        self.value_norms = value_norms
        self.checkpoints = checkpoints
        self.is_save_due = False
        self._logged: dict[str, float] = {}
        super().__init__(model=model, args=args, callbacks=[_Resume(self), *callbacks])
        self.remove_callback(PrinterCallback)
        arguments = forget_arguments(recipe, model)
        forget = [Term(each, 1.0, arguments) for each in recipe.objective.forget_terms()]
        weights = recipe.objective.retain.values()
        retain = [Term(each, w, {}) for each, w in zip(recipe.objective.retain_terms(), weights, strict=True)]
        self._terms = {"forget": forget, "retain": retain, "poisoned": retain}
        self._layer = hidden_state_layer(recipe, model)

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The weights that are trained, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def get_train_dataloader(self) -> DataLoader[dict[str, int]]:
        """An item per step: every process finds its rows in the plan."""
        steps: Any = [{"step": step} for step in range(len(self.plan))]
        generator = torch.Generator()  # its own, so that it draws nothing from the one of dropout
        return DataLoader(steps, batch_size=1, generator=generator)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the loss and the terms of the step, and epochs of the forget set."""
        if "loss" in logs:
            self.state.epoch = round(self.plan.epoch(self.state.global_step), 4)
            logs = logs | self._logged
        super().log(logs, start_time)

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Float[Tensor, ""]:
        """The gradient of one step; returns its loss.

        Raises:
            RecipeError: a term or the gradient is infinite or NaN.
        """
        model.train()
        step = self.state.global_step + 1
        random = random_states() if self.is_save_due else {}
        rows = self.plan[step - 1]
        splits = [split for split in rows if self._terms[split] or self._value_norms_of(split)]
        terms: dict[str, float] = {}
        norms: dict[str, float] = {}
        accumulated: dict[str, Tensor] = {}
        loss = 0.0
        for split in splits:
            loss += self._backward(split, rows[split], terms)
            if step == 1 or step % NORMS_EVERY == 0:
                norms[f"gradient/{split}"] = self._gradient_norm()
                self._move_gradients(accumulated)
        trained = self.trained if accumulated else {}
        for name, gradient in accumulated.items():
            trained[name].grad = gradient
        check_finite("the gradient", self._gradient_norm(), step)
        self._logged = {"loss": loss} | terms | norms
        if self.checkpoints and self.is_save_due:  # finite losses and gradients show the weights to be good
            tensors, values = collect_state(self)
            self.checkpoints.save(step - 1, self.state.log_history, tensors | random, values)
        self.is_save_due = False
        return torch.tensor(loss, device=self.args.device)

    def _move_gradients(self, accumulated: dict[str, Tensor]) -> None:
        for name, weight in self.trained.items():
            if weight.grad is not None:
                accumulated[name] = accumulated[name] + weight.grad if name in accumulated else weight.grad
                weight.grad = None

    def _gradient_norm(self) -> float:
        gradients = [weight.grad for weight in self.trained.values() if weight.grad is not None]
        return full_tensor(torch.nn.utils.get_total_norm(gradients)).item()

    def _value_norms_of(self, split: str) -> ValueNormTerm | None:
        return self.value_norms if self.value_norms and split in self.value_norms.splits else None

    def _backward(self, split: str, rows: list[int], terms: dict[str, float]) -> float:
        """Add the gradient of one split's loss over the batch `rows`, and its terms; returns the loss."""
        full_batch = Batch.of(self.passages[split], rows)
        n, n_processes = self.recipe.optimizer.gradient_accumulation_steps, self.args.world_size
        microbatches = split_into_microbatches(rows, n_processes * n)
        own = microbatches[self.args.process_index * n : (self.args.process_index + 1) * n]
        names: list[str] = []
        sums = torch.zeros(0)
        for microbatch in own:
            if not microbatch and n_processes == 1:
                continue
            # an empty microbatch of several processes needs a pass, too: it is a collective operation
            batch = Batch.of(self.passages[split], microbatch or rows[:1]).to(self.args.device)
            found = self._forward_backward(split, batch, full_batch, 1.0 if microbatch else 0.0)
            names = list(found)
            values = torch.stack(list(found.values())).detach().cpu().double()
            sums = values if not len(sums) else sums + values
        if n_processes > 1:
            sums = self.accelerator.reduce(sums.to(self.args.device), "sum").cpu()
        losses = dict(zip(names, sums.tolist(), strict=True))
        for name, value in losses.items():
            check_finite(f"term {split}/{name}", value, self.state.global_step + 1, " or the term's weight")
        terms |= {f"{split}/{name}": value for name, value in losses.items() if name != LOSS}
        return losses[LOSS]

    def _forward_backward(
        self, split: str, batch: Batch, full_batch: Batch, scale: float
    ) -> dict[str, Tensor]:
        """Forward and backward pass of one microbatch.

        Returns its terms and its loss, such that those of all microbatches sum to the means over the batch.
        """
        needs = frozenset().union(*(term.objective.outputs for term in self._terms[split]))
        value_norms = self._value_norms_of(split)
        with (
            mask_positions(self.model, self.recipe.masked_positions),
            value_norms.recording() if value_norms else nullcontext({}) as values,
        ):
            with autocast(self.args.device, self.recipe.optimizer.precision == "mixed"):
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
            self.accelerator.backward(loss * self.args.world_size)  # gradients are averaged over processes
        return terms | {LOSS: loss}


class _Resume(TrainerCallback):
    """Resumes from the newest checkpoint, and says when the next one is due."""

    def __init__(self, trainer: UnlearnTrainer) -> None:
        self._trainer: Any = weakref.proxy(trainer)  # the trainer has its callbacks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = self._trainer
        torch.manual_seed(trainer.recipe.seed)
        if trainer.checkpoints and (found := trainer.checkpoints.load()):
            restore_state(trainer, found.tensors, found.values)
            state.global_step, state.log_history = found.step, found.log

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if checkpoints := self._trainer.checkpoints:
            plan = self._trainer.plan
            every = checkpoints.every or max(1, len(plan) // plan.epochs)
            self._trainer.is_save_due = state.global_step % every == 0


def check_finite(name: str, value: float, step: int, more_to_lower: str = "") -> None:
    """Raise RecipeError with the fix if a number of a step is not finite."""
    if not math.isfinite(value):
        fix = f"lower optimizer.learning_rate{more_to_lower}"
        if step == 1 and name != WEIGHTS:  # no weight has changed yet
            fix = "check the model and the objective"
        raise RecipeError(f"recipe: {name} became {value} at step {step}, so the run was stopped; {fix}")
