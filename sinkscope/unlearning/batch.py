"""Batches of passages and their order in a run, forward passes over them, and what objectives read."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping, Sequence, Sized
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.benchmarks.chunking import Passage
from sinkscope.models.attention import mask_keys
from sinkscope.models.hidden_states import decoder_layers, layer_outputs, truncate_layers
from sinkscope.models.model import Model
from sinkscope.models.padding import PaddedBatch

if TYPE_CHECKING:
    from sinkscope.unlearning.recipe import OptimizerConfig

Unit = Literal["passages", "predicted", "tokens"]


@dataclass(frozen=True)
class Batch:
    """Right-padded passages of one split.

    Attributes:
        index: row number of each passage in its split, under which the reference cache has it.
        predicted: which of the positions 1, 2, … the model learns to predict: real tokens after the prompt.
    """

    index: Int[Tensor, " batch"]
    input_ids: Int[Tensor, "batch position"]
    attention_mask: Bool[Tensor, "batch position"]
    predicted: Bool[Tensor, "batch position-1"]

    @classmethod
    def of(cls, passages: Sequence[Passage], rows: Sequence[int]) -> Batch:
        """The passages of these row numbers; objectives mask the padding, so its token has no effect."""
        chosen = [passages[row] for row in rows]
        padded = PaddedBatch.pad([each.tokens for each in chosen], 0)
        starts = torch.tensor([each.prompt_length for each in chosen])[:, None]
        scored = padded.mask & (padded.position_ids >= starts)
        return cls(torch.tensor(rows), padded.ids, padded.mask, scored[:, 1:])

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))

    def count(self, unit: Unit) -> int:
        """Number of passages, predicted positions or real tokens: the denominator of a batch mean."""
        if unit == "passages":
            return len(self.index)
        return int((self.predicted if unit == "predicted" else self.attention_mask).sum())


@dataclass(frozen=True)
class BatchPlan:
    """Row numbers of the run's passages, by split, in seeded order.

    An epoch is one pass over the forget set, or `steps_per_epoch` batches of it. The other splits have as
    many rows; over the run each of their passages occurs as often as any other (± 1).
    """

    rows: dict[str, list[int]]
    batch_size: int
    epochs: int

    @classmethod
    def of(cls, splits: Mapping[str, Sized], optimizer: OptimizerConfig, seed: int) -> BatchPlan:
        """The plan for these splits; empty ones are left out."""
        rows_per_epoch = len(splits["forget"])
        if optimizer.steps_per_epoch is not None:
            rows_per_epoch = min(rows_per_epoch, optimizer.steps_per_epoch * optimizer.batch_size)
        total = rows_per_epoch * optimizer.epochs
        rows = {
            split: _shuffled_rows(len(passages), total, f"{split} {seed}")
            for split, passages in splits.items()
            if len(passages)
        }
        return cls(rows, optimizer.batch_size, optimizer.epochs)

    def __len__(self) -> int:
        return -(-len(self.rows["forget"]) // self.batch_size)

    def __getitem__(self, step: int) -> dict[str, list[int]]:
        start = step * self.batch_size
        return {split: rows[start : start + self.batch_size] for split, rows in self.rows.items()}

    def epoch(self, step: int) -> float:
        """The number of epochs that are finished after `step` steps."""
        return min(step * self.batch_size / len(self.rows["forget"]), 1.0) * self.epochs


def _shuffled_rows(size: int, total: int, seed: str) -> list[int]:
    rng = random.Random(seed)
    rows: list[int] = []
    while len(rows) < total:
        rows += rng.sample(range(size), size)
    return rows[:total]


def split_into_microbatches(rows: Sequence[int], count: int) -> list[list[int]]:
    """`count` microbatches of nearly equal size; the last are empty if there are fewer rows."""
    size = -(-len(rows) // count)
    return [list(rows[i * size : (i + 1) * size]) for i in range(count)]


@dataclass(frozen=True)
class Outputs:
    """What one forward pass returned, as far as requested: logits in fp32, hidden states after one layer."""

    logits: Float[Tensor, "batch position vocab"] | None = None
    hidden: Float[Tensor, "batch position d_model"] | None = None


class References(Protocol):
    """Outputs of the reference model on the passages of one split."""

    log_probs: Float[Tensor, " passage"]

    def logits(self, batch: Batch) -> Float[Tensor, "batch position vocab"]:
        """Logits on `batch`."""

    def hidden(self, batch: Batch) -> Float[Tensor, "batch position d_model"]:
        """Hidden states on `batch`."""


def token_log_probs(
    logits: Float[Tensor, "batch position vocab"], batch: Batch
) -> Float[Tensor, "batch position-1"]:
    """log p(token t | tokens before t) for t = 1, 2, …; 0 where t is not predicted."""
    chosen = logits[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    return torch.where(batch.predicted, chosen - logits[:, :-1].logsumexp(-1), 0.0)


def sequence_log_probs(
    logits: Float[Tensor, "batch position vocab"], batch: Batch
) -> Float[Tensor, " batch"]:
    """Summed log-probability of each passage's predicted tokens, in nats."""
    return token_log_probs(logits, batch).sum(-1)


def forward(
    model: PreTrainedModel,
    batch: Batch,
    *,
    logits: bool = True,
    layer: int | None = None,
    run_all_layers: bool = False,
) -> Outputs:
    """The logits, the hidden states after `layer`, or both; without logits the pass ends at `layer`.

    Args:
        run_all_layers: run all layers though no logits are requested, because something else is recorded.
    """
    options: dict[str, Any] = {}
    if not logits and "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    hidden: list[Tensor] = []
    with ExitStack() as stack:
        if layer is not None:
            layers = decoder_layers(model)
            stack.enter_context(layer_outputs([layers[layer]], lambda _, output: hidden.append(output)))
            if not (logits or run_all_layers):
                stack.enter_context(truncate_layers(layers, layer + 1))
        result = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), use_cache=False, **options
        )
    return Outputs(result.logits.float() if logits else None, hidden[0] if hidden else None)


def autocast(device: torch.device, mixed: bool) -> torch.autocast:
    """Autocast to bfloat16 if `mixed`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed)


def mask_positions(model: PreTrainedModel, positions: Sequence[int] | None) -> AbstractContextManager[None]:
    """Within the context no later position attends to `positions`, if any.

    With gradient checkpointing the backward pass, which recomputes activations, must be in the context, too.
    """
    return mask_keys(Model("in training", model, None), positions) if positions else nullcontext()
