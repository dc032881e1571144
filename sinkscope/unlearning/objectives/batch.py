"""What objectives read: a padded batch of one split, what the model made of it, and log-probabilities of the tokens in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sinkscope.models.batches import padded_batches

Unit = Literal["passages", "predicted", "tokens"]


@dataclass(frozen=True)
class Batch:
    """Right- or left-padded passages of one split. `index` are their row numbers in that split, by which references are kept; `scored` tokens are
    those to be predicted: all real ones, but for a prompt that is given."""

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
        given: Sequence[int] | None = None,
    ) -> Batch:
        """Right-pad `passages` to the longest of them; of each the first `given` tokens are not to be predicted."""
        (padded,) = padded_batches(passages, len(passages), pad_id, torch.device("cpu"))
        scored = padded.mask & (padded.position_ids >= torch.tensor(given or [0] * len(passages))[:, None])
        return cls(torch.tensor(index), padded.ids, padded.mask, scored)

    def to(self, device: torch.device) -> Batch:
        return Batch(
            self.index.to(device),
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.scored.to(device),
        )

    @property
    def predicted(self) -> Bool[Tensor, "batch position-1"]:
        """Which of the positions 1, 2, … are tokens to be predicted with a real token before them."""
        return self.scored[:, 1:] & self.attention_mask[:, :-1]

    @property
    def position_ids(self) -> Int[Tensor, "batch position"]:
        """Positions that count from each passage's first real token."""
        return (self.attention_mask.long().cumsum(-1) - 1).clamp(min=0)

    def count(self, unit: Unit) -> int:
        """How many passages, predicted positions or real tokens it has: what a mean over the batch divides by."""
        if unit == "passages":
            return len(self.index)
        return int((self.predicted if unit == "predicted" else self.attention_mask).sum())


@dataclass(frozen=True)
class Passages:
    """All passages of one split: token ids with BOS first, and how many leading tokens of each are a prompt that is given."""

    tokens: list[list[int]]
    given: list[int]

    @classmethod
    def whole(cls, tokens: list[list[int]]) -> Passages:
        """Passages of which every token is to be predicted."""
        return cls(tokens, [0] * len(tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Sequence[int], pad_id: int = 0) -> Batch:
        return Batch.pad(rows, [self.tokens[row] for row in rows], pad_id, [self.given[row] for row in rows])


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gave, as far as it was asked for: logits in fp32, and the hidden states behind one layer."""

    logits: Float[Tensor, "batch position vocab"] | None = None
    hidden: Float[Tensor, "batch position d_model"] | None = None


def token_log_probs(
    logits: Float[Tensor, "batch position vocab"], batch: Batch
) -> Float[Tensor, "batch position-1"]:
    """log p(token t | tokens before t) for t = 1, 2, …; 0 where t is not to be predicted."""
    chosen = logits[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    return torch.where(batch.predicted, chosen - logits[:, :-1].logsumexp(-1), 0.0)


def sequence_log_probs(
    logits: Float[Tensor, "batch position vocab"], batch: Batch
) -> Float[Tensor, " batch"]:
    """Summed log-probability of each passage's predicted tokens, in nats."""
    return token_log_probs(logits, batch).sum(-1)
