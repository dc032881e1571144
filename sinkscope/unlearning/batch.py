"""Batches of passages for training, and what objectives read: outputs, references, log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sinkscope.models.model import PaddedBatch

Unit = Literal["passages", "predicted", "tokens"]


@dataclass(frozen=True)
class Batch:
    """Right- or left-padded passages of one split.

    Attributes:
        index: row number of each passage in its split, under which the reference cache has it.
        scored: tokens that the model is trained to predict: all real tokens except a prompt.
    """

    index: Int[Tensor, " batch"]
    input_ids: Int[Tensor, "batch position"]
    attention_mask: Bool[Tensor, "batch position"]
    scored: Bool[Tensor, "batch position"]

    @classmethod
    def pad(
        cls,
        index: Sequence[int],
        passages: Sequence[Sequence[int]],
        pad_id: int,
        n_prompt: Sequence[int] | None = None,
    ) -> Batch:
        """Right-pad `passages` to the longest; the first `n_prompt` tokens of each are not predicted."""
        padded = PaddedBatch.pad(passages, pad_id)
        starts = torch.tensor(n_prompt or [0] * len(passages))[:, None]
        return cls(
            torch.tensor(index), padded.ids, padded.mask, padded.mask & (padded.position_ids >= starts)
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.index.to(device),
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.scored.to(device),
        )

    @property
    def predicted(self) -> Bool[Tensor, "batch position-1"]:
        """Which of the positions 1, 2, … are scored and follow a real token."""
        return self.scored[:, 1:] & self.attention_mask[:, :-1]

    @property
    def position_ids(self) -> Int[Tensor, "batch position"]:
        """Positions, counted from each passage's first real token."""
        return (self.attention_mask.long().cumsum(-1) - 1).clamp(min=0)

    def count(self, unit: Unit) -> int:
        """Number of passages, predicted positions or real tokens: the denominator of a batch mean."""
        if unit == "passages":
            return len(self.index)
        return int((self.predicted if unit == "predicted" else self.attention_mask).sum())


@dataclass(frozen=True)
class Passages:
    """All passages of one split: token ids (BOS first) and the number of leading prompt tokens of each."""

    tokens: list[list[int]]
    n_prompt: list[int]

    @classmethod
    def without_prompts(cls, tokens: list[list[int]]) -> Passages:
        """Passages of which every token is predicted."""
        return cls(tokens, [0] * len(tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Sequence[int], pad_id: int = 0) -> Batch:
        """The passages of these row numbers, padded."""
        return Batch.pad(
            rows, [self.tokens[row] for row in rows], pad_id, [self.n_prompt[row] for row in rows]
        )


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
