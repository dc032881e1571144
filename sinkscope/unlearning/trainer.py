"""Training: a transformers Trainer that takes one gradient pass each for the forget, the retain and the poisoned passages of a step."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from sinkscope.errors import RecipeError
from sinkscope.models import Model
from sinkscope.progress import Report
from sinkscope.unlearning.forward import forward
from sinkscope.unlearning.objectives import FORGET, HIDDEN, LOGITS, RETAIN, Objective
from sinkscope.unlearning.objectives.batch import Batch
from sinkscope.unlearning.objectives.value_norm import ValueNormTerm
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.references import References

SPLITS = ("forget", "retain", "poisoned")
Passages = list[list[int]]


class Triples(torch.utils.data.Dataset[dict[str, int]]):
    """Row numbers, one per split: an epoch walks through the forget set once; the other splits are drawn in seeded order,
    each of their passages as often as any other (± 1) over the whole run."""

    def __init__(self, sizes: Mapping[str, int], epochs: int, seed: int) -> None:
        self.epoch_length = sizes["forget"]
        total = self.epoch_length * epochs
        self._rows = {split: _cycle(size, total, f"{split} {seed}") for split, size in sizes.items() if size}

    def __len__(self) -> int:
        return len(self._rows["forget"])

    def __getitem__(self, item: int) -> dict[str, int]:
        return {split: rows[item] for split, rows in self._rows.items()}


def _cycle(size: int, total: int, seed: str) -> list[int]:
    rng = random.Random(seed)
    rows: list[int] = []
    while len(rows) < total:
        rows += rng.sample(range(size), size)
    return rows[:total]


@dataclass
class Collator:
    """Row numbers to one padded batch per split."""

    passages: Mapping[str, Passages]
    pad_id: int

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, Batch]:
        rows = {split: [item[split] for item in items] for split in items[0]}
        return {split: Batch.pad(index, [self.passages[split][i] for i in index], self.pad_id) for split, index in rows.items()}


class UnlearningTrainer(Trainer):
    """Minimises ℓ_f(Df) + Σ γ ( ℓ_r(Dr) + ℓ_r(Dp) ) + λ ℓ_vn, backward split by split, so that only one graph is alive at a time."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        passages: Mapping[str, Passages],
        references: Mapping[str, References],
        value_norms: ValueNormTerm | None,
        output: Path,
        callbacks: list[TrainerCallback],
        layer: int | None = None,
        control: Tensor | None = None,
    ) -> None:
        optimiser, part = recipe.optimiser, recipe.objective
        self._layer = layer
        parameters = {"beta": part.beta, "delta": part.delta, "control": control}
        forget = FORGET[part.forget]
        keep: list[tuple[float, Objective, dict[str, Any]]] = [(weight, RETAIN[name], {}) for name, weight in part.retain.items()]
        taken = {name: parameters[name] for name in forget.parameters if parameters[name] is not None}
        self._terms: dict[str, list[tuple[float, Objective, dict[str, Any]]]] = {"forget": [(1.0, forget, taken)], "retain": keep, "poisoned": keep}
        dataset = Triples({split: len(passages.get(split, [])) for split in SPLITS}, optimiser.epochs, recipe.seed)
        self._recipe, self._references, self._value_norms = recipe, references, value_norms
        self._sums: dict[str, list[float]] = {}
        arguments = TrainingArguments(
            output_dir=str(output),
            per_device_train_batch_size=optimiser.batch_size,
            num_train_epochs=1,  # Triples already repeats
            learning_rate=optimiser.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=optimiser.weight_decay,
            max_grad_norm=optimiser.max_grad_norm,
            seed=recipe.seed,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=model.device.type == "cpu",
            logging_steps=10,
            logging_first_step=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        super().__init__(
            model=model.hf,
            args=arguments,
            train_dataset=dataset,
            data_collator=Collator(passages, model.tokenizer.pad_token_id or 0),
            callbacks=callbacks,
        )
        from transformers.trainer_callback import PrinterCallback

        self.remove_callback(PrinterCallback)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Batch], num_items_in_batch: Tensor | None = None) -> Tensor:
        model.train()
        total = torch.zeros((), device=self.args.device)
        for split, batch in inputs.items():
            with self.compute_loss_context_manager():
                loss = self._loss(model, split, batch.to(self.args.device))
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _loss(self, model: torch.nn.Module, split: str, batch: Batch) -> Tensor:
        recording = self._value_norms.recording() if self._value_norms and split != "retain" else None
        needs = frozenset().union(*(objective.outputs for _, objective, _ in self._terms[split]))
        layer = self._layer if HIDDEN in needs else None
        with recording or nullcontext({}) as norms:
            outputs = forward(model, batch, logits=LOGITS in needs, layer=layer, whole=recording is not None)
        loss = torch.zeros((), device=batch.input_ids.device)
        terms: dict[str, Tensor] = {}
        for weight, objective, parameters in self._terms[split]:
            mine = objective.terms(batch, outputs, self._references.get(split), **parameters)
            loss = loss + weight * sum(mine.values(), torch.zeros_like(loss))
            terms |= mine
        if recording and self._value_norms:
            terms["value_norm"] = self._value_norms(split, batch, norms)
            loss = loss + self._recipe.value_norms.weight * terms["value_norm"]
        for name, value in terms.items():
            number = value.item()
            if not math.isfinite(number):
                at = f"term {split}/{name} became {number} at step {self.state.global_step + 1}"
                raise RecipeError(f"recipe: {at}, so the run was stopped; lower optimiser.learning_rate or the term's weight")
            self._sums.setdefault(f"{split}/{name}", []).append(number)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of every term since the last log."""
        logs |= {name: sum(values) / len(values) for name, values in self._sums.items()}
        self._sums = {}
        super().log(logs, *args, **kwargs)


class ReportProgress(TrainerCallback):
    """Calls `report(done, total)` after every step."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        self._report(state.global_step, state.max_steps)
