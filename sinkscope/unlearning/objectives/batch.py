"""What objectives read: a padded batch of one split, what the model made of it, and log-probabilities of the tokens in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Right- or left-padded passages of one split. `index` are their row numbers in that split, by which references are kept."""

    index: Int[Tensor, " batch"]
    input_ids: Int[Tensor, "batch position"]
    attention_mask: Bool[Tensor, "batch position"]

    @classmethod
    def pad(cls, index: list[int], passages: list[list[int]], pad_id: int) -> Batch:
        """Right-pad `passages` to the longest of them."""
        length = max(map(len, passages))
        ids = torch.full((len(passages), length), pad_id)
        mask = torch.zeros(len(passages), length, dtype=torch.bool)
        for row, tokens in enumerate(passages):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = True
        return cls(torch.tensor(index), ids, mask)

    def to(self, device: torch.device) -> Batch:
        return Batch(self.index.to(device), self.input_ids.to(device), self.attention_mask.to(device))

    @property
    def predicted(self) -> Bool[Tensor, "batch position-1"]:
        """Which of the positions 1, 2, … are real tokens with a real token before them."""
        return self.attention_mask[:, 1:] & self.attention_mask[:, :-1]


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gave, as far as it was asked for: logits, and the hidden states behind one layer."""

    logits: Float[Tensor, "batch position vocab"] | None = None
    hidden: Float[Tensor, "batch position d_model"] | None = None


def token_log_probs(logits: Float[Tensor, "batch position vocab"], batch: Batch) -> Float[Tensor, "batch position-1"]:
    """log p(token t | tokens before t) for t = 1, 2, …; 0 where t or its predecessor is padding."""
    chosen = logits[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    return torch.where(batch.predicted, chosen - logits[:, :-1].logsumexp(-1), 0.0)


def sequence_log_probs(logits: Float[Tensor, "batch position vocab"], batch: Batch) -> Float[Tensor, " batch"]:
    """Summed log-probability of each passage after its first token, in nats."""
    return token_log_probs(logits, batch).sum(-1)
