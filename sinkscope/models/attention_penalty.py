"""Auxiliary losses on attention for pretraining: what heads attend to, weighted by a cost of each position.

The penalty of a layer is Σ_k A[i, k] · cost[k], a mean over passages, heads and queries i. Two costs are
defined:

- `value_norm_penalty`: the norm of a position's value vector. Sinks that form by themselves become stronger
  under it and their values smaller; where heads attend to is still left to training.
- `first_token_penalty`: 1 at the first position, 0 elsewhere. Under it no sink can form there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from sinkscope.models.attention import AttentionHook, attention_hook

AttentionPenalty = Callable[[Tensor], tuple[Tensor, Tensor | float]]
"""Values [batch, head, key, d_head] -> the cost of each key [batch, head, key, 1], and its divisor."""


def value_norm_penalty(value: Float[Tensor, "batch head key d_head"]) -> tuple[Tensor, Tensor | float]:
    """A position's value norm, in units of the head's mean value norm."""
    norms = value.norm(dim=-1, keepdim=True)
    return norms, norms.mean(2)


def first_token_penalty(value: Float[Tensor, "batch head key d_head"]) -> tuple[Tensor, Tensor | float]:
    """1 at the first position, 0 elsewhere: the penalty is the attention that the first position receives."""
    cost = torch.zeros_like(value[..., :1])
    cost[:, :, 0] = 1.0
    return cost, 1.0


class _PenaltyHook(AttentionHook):
    """Attend by sdpa to values that have their cost as one more dimension."""

    def __init__(self, penalty: AttentionPenalty) -> None:
        self._penalty = penalty
        self.penalties: list[Tensor] = []

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        cost, unit = self._penalty(value)
        extended = torch.cat([value, cost], dim=-1)
        output = nn.functional.scaled_dot_product_attention(
            query, key, extended, is_causal=True, scale=scaling
        )
        self.penalties.append((output[..., -1] / unit).mean())
        return output[..., :-1].transpose(1, 2).contiguous(), None


@contextmanager
def attention_penalty(model: PreTrainedModel, penalty: AttentionPenalty) -> Iterator[list[Float[Tensor, ""]]]:
    """Within the context every forward pass appends one penalty per layer to the yielded list.

    Passages are not padded and keys not grouped (as many key-value heads as query heads). With uniform
    attention and equal value norms `value_norm_penalty` gives 1.
    """
    with attention_hook(model, _PenaltyHook(penalty)) as hook:
        yield hook.penalties
