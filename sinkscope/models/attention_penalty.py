"""Prices on attention, that pretraining can pay or avoid: per head and query, the attention-weighted mean of what each position costs.

The *idle* price of a position is the norm of its value vector, over the head's mean: sinks that formed by themselves grow stronger under it, and where heads
rest is still left to training. It drains the sink's values by construction. The *first* price is 1 at the first position and 0 elsewhere: under it no sink
can form there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from sinkscope.models.model import attention_implementation

NAME = "sinkscope_priced"
AttentionPenalty = Callable[[Tensor], tuple[Tensor, Tensor | float]]
"""Called with the values [batch, head, key, d_head]; gives what each key costs [batch, head, key, 1] and the unit it is told in."""
_active: list[tuple[AttentionPenalty, list[Tensor]]] = []


def value_norm_penalty(value: Float[Tensor, "batch head key d_head"]) -> tuple[Tensor, Tensor | float]:
    """A position's value norm, in units of the head's mean value norm."""
    norms = value.norm(dim=-1, keepdim=True)
    return norms, norms.mean(2)


def first_token_penalty(value: Float[Tensor, "batch head key d_head"]) -> tuple[Tensor, Tensor | float]:
    """1 at the first position, 0 elsewhere: the price paid is the attention that it gets."""
    price = torch.zeros_like(value[..., :1])
    price[:, :, 0] = 1.0
    return price, 1.0


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    of, costs = _active[-1]
    price, unit = of(value)
    attention_penalty = torch.cat([value, price], dim=-1)
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, attention_penalty, is_causal=True, scale=scaling
    )
    costs.append((output[..., -1] / unit).mean())
    return output[..., :-1].transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def attention_penalty(model: PreTrainedModel, of: AttentionPenalty) -> Iterator[list[Tensor]]:
    """Within the context each forward pass over unpadded passages appends one cost per layer, a mean over passages, heads and queries (of `idle` 1 for
    uniform attention and values); heads are not grouped."""
    _active.append((of, []))
    try:
        with attention_implementation(model, NAME):
            yield _active[-1][1]
    finally:
        _active.pop()
