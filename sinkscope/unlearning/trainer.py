"""Training: one gradient pass each for the forget, the retain and the poisoned passages of a step.

A loop of our own instead of a transformers Trainer: a step has several losses over several data sets, a batch that is split (over passes or
processes) has to give the gradient of the whole one, and a run that was killed has to end with the same bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.errors import RecipeError
from sinkscope.io.progress import OnProgress
from sinkscope.unlearning.batch_plan import SPLITS, BatchPlan, split_into_microbatches
from sinkscope.unlearning.checkpoints import Checkpoints, Progress, random_states
from sinkscope.unlearning.forward import autocast, forward, mask_positions
from sinkscope.unlearning.objectives import HIDDEN, LOGITS, RETAIN, Objective, forgetting
from sinkscope.unlearning.objectives.batch import Batch, Passages
from sinkscope.unlearning.objectives.value_norm import ValueNormTerm
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache
from sinkscope.unlearning.sharding import ALONE, World, full

LOG_EVERY = 10


@dataclass(frozen=True)
class Term:
    """One objective on one split, with its weight in the loss."""

    weight: float
    objective: Objective
    parameters: dict[str, Any]


@dataclass
class Trainer:
    """Minimises ℓ_f(Df) + Σ γ ( ℓ_r(Dr) + ℓ_r(Dp) ) + λ ℓ_vn, backward part by part, so that only one graph is alive at a time.

    Parameters without `requires_grad` are left alone. Each process of `world` computes its part of every batch; means are over the whole batch.
    """

    model: PreTrainedModel
    recipe: Recipe
    passages: Mapping[str, Passages]
    references: Mapping[str, ReferenceCache]
    value_norms: ValueNormTerm | None = None
    layer: int | None = None
    control: Tensor | None = None
    pad_id: int = 0
    world: World = ALONE
    stop: Callable[[int], bool] = lambda step: False
    """Asked after every step whether the run shall end there."""

    def __post_init__(self) -> None:
        part = self.recipe.objective
        given = {"beta": part.beta, "delta": part.delta, "control": self.control}
        keep = [Term(weight, RETAIN[name], {}) for name, weight in part.retain.items()]
        forget = [
            Term(1.0, term, {n: given[n] for n in term.parameters if given[n] is not None})
            for term in forgetting(part.forget)
        ]
        self._terms = {"forget": forget, "retain": keep, "poisoned": keep}
        self.weights = {
            name: weight for name, weight in self.model.named_parameters() if weight.requires_grad
        }
        self.schedule = BatchPlan.of(
            {split: len(self.passages.get(split, ())) for split in SPLITS},
            self.recipe.optimizer,
            self.recipe.seed,
        )

    def run(self, checkpoints: Checkpoints | None = None, on_progress: OnProgress | None = None) -> Progress:
        """Train to the end, from the newest checkpoint if there is one; returns the log, an entry for the first and every tenth step.

        Raises:
            RecipeError: a term became infinite or not a number.
        """
        optimizer = self._optimizer()
        with torch.random.fork_rng(devices=[self.model.device] if self.model.device.type == "cuda" else []):
            torch.manual_seed(self.recipe.seed)
            progress = checkpoints.resume(self.weights, optimizer) if checkpoints else Progress()
            self.model.train()
            if self.recipe.optimizer.checkpointing:
                self.model.gradient_checkpointing_enable(
                    gradient_checkpointing_kwargs={"use_reentrant": False}
                )
            try:
                begun = progress.step
                while progress.step < len(self.schedule):
                    save = None
                    if checkpoints and progress.step > begun and progress.step % checkpoints.every == 0:
                        save = partial(
                            checkpoints.save,
                            copy.deepcopy(progress),
                            self.weights,
                            optimizer,
                            random_states(),
                        )
                    self._step(progress, optimizer, save)
                    if on_progress:
                        on_progress(progress.step, len(self.schedule))
                    if self.recipe.stopping.every and self.world.agreed(self.stop(progress.step)):
                        break
            finally:
                if self.recipe.optimizer.checkpointing:
                    self.model.gradient_checkpointing_disable()
                self.model.eval()
                self.model.zero_grad(set_to_none=True)
        return progress

    def _optimizer(self) -> torch.optim.Optimizer:
        part = self.recipe.optimizer
        matrices = [weight for weight in self.weights.values() if weight.ndim > 1]
        others = [weight for weight in self.weights.values() if weight.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": part.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=part.learning_rate, fused=True
        )

    def _step(
        self, progress: Progress, optimizer: torch.optim.Optimizer, save: Callable[[], None] | None = None
    ) -> None:
        """One step. `save` keeps the state before it, once its losses and gradients have shown that state to be good."""
        progress.step += 1
        logged = progress.step == 1 or progress.step % LOG_EVERY == 0
        gradients: dict[str, float] = {}
        aside: dict[str, Tensor] = {}
        for split, rows in self.schedule[progress.step - 1].items():
            if not (self._terms[split] or (self.value_norms and split in self.value_norms.splits)):
                continue
            for name, value in self._backward(split, rows, progress.step).items():
                progress.sums.setdefault(name, []).append(value)
            if logged:  # the splits' gradients one by one
                gradients[f"gradient/{split}"] = self._norm()
                for name, weight in self.weights.items():
                    if weight.grad is not None:
                        aside[name] = aside[name] + weight.grad if name in aside else weight.grad
                        weight.grad = None
        for name, gradient in aside.items():
            self.weights[name].grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(
            list(self.weights.values()), self.recipe.optimizer.max_grad_norm
        )
        if not math.isfinite(full(norm).item()):
            raise RecipeError(
                f"recipe: the gradient became {full(norm).item()} at step {progress.step}, so the run was stopped; lower optimizer.learning_rate"
            )
        if save:
            save()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if logged:
            means = {name: sum(values) / len(values) for name, values in progress.sums.items()}
            head = {
                "step": progress.step,
                "epoch": round(self.schedule.epoch(progress.step), 4),
                "gradient": full(norm).item(),
            }
            progress.log.append(head | means | gradients)
            progress.sums = {}

    def _norm(self) -> float:
        return full(
            torch.nn.utils.get_total_norm(
                [weight.grad for weight in self.weights.values() if weight.grad is not None]
            )
        ).item()

    def _backward(self, split: str, rows: list[int], step: int) -> dict[str, float]:
        """Add the gradient of one split's loss over the whole batch `rows`; returns the loss and its terms."""
        whole = self.passages[split].batch(rows, self.pad_id)
        mine = self.recipe.optimizer.accumulation
        chunks = split_into_microbatches(rows, self.world.size * mine)[
            self.world.rank * mine : (self.world.rank + 1) * mine
        ]
        names: list[str] = []
        seen = torch.zeros(0)
        for chunk in chunks:
            idle = not chunk  # sharded weights want a pass of every process all the same
            if idle and self.world.size == 1:
                continue
            batch = self.passages[split].batch(chunk or rows[:1], self.pad_id).to(self.model.device)
            terms = self._pass(split, batch, whole, 0.0 if idle else 1.0)
            names, values = list(terms), torch.stack(list(terms.values())).detach().cpu().double()
            seen = values if not len(seen) else seen + values
        self.world.summed(seen)
        found = {f"{split}/{name}": value for name, value in zip(names, seen.tolist(), strict=True)}
        for name, value in found.items():
            if not math.isfinite(value):
                at = f"term {name} became {value} at step {step}"
                raise RecipeError(
                    f"recipe: {at}, so the run was stopped; lower optimizer.learning_rate or the term's weight"
                )
        return found

    def _pass(self, split: str, batch: Batch, whole: Batch, count: float) -> dict[str, Tensor]:
        """Forward and backward of one part of a batch; its terms, weighted so that those of all parts add up to the batch's means."""
        needs = frozenset().union(*(term.objective.outputs for term in self._terms[split]))
        value_norms = self.value_norms if self.value_norms and split in self.value_norms.splits else None
        with (
            mask_positions(self.model, self.recipe.hidden),
            value_norms.recording() if value_norms else nullcontext({}) as values,
        ):
            with autocast(self.model.device, self.recipe.optimizer.precision == "mixed"):
                layer = self.layer if HIDDEN in needs else None
                outputs = forward(
                    self.model, batch, logits=LOGITS in needs, layer=layer, whole=value_norms is not None
                )
            loss = torch.zeros((), device=batch.input_ids.device)
            terms: dict[str, Tensor] = {}
            for term in self._terms[split]:
                share = count * batch.count(term.objective.unit) / whole.count(term.objective.unit)
                mine = {
                    n: share * v
                    for n, v in term.objective.terms(
                        batch, outputs, self.references.get(split), **term.parameters
                    ).items()
                }
                loss = loss + term.weight * sum(mine.values(), torch.zeros_like(loss))
                terms |= mine
            if value_norms:
                terms["value_norm"] = (
                    count
                    * batch.count("passages")
                    / whole.count("passages")
                    * value_norms(split, batch, values)
                )
                loss = loss + self.recipe.value_norms.weight * terms["value_norm"]
            (loss * self.world.size).backward()  # sharded gradients are averaged over processes
        return terms
