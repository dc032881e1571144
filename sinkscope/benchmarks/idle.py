"""A price on looking at what carries something: per head and query the attention-weighted mean of the value norms, over the head's mean value norm.

Sinks that formed by themselves grow stronger under it, and where heads rest is still left to training. It drains the sink's values by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from sinkscope.models import switched_attention

NAME = "sinkscope_idle_cost"
_active: list[list[Tensor]] = []


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **others: Any
) -> tuple[Tensor, None]:
    norms = value.norm(dim=-1, keepdim=True)
    with_norms = torch.cat([value, norms], dim=-1)
    output = torch.nn.functional.scaled_dot_product_attention(query, key, with_norms, is_causal=True, scale=scaling)
    _active[-1].append((output[..., -1] / norms.mean(2)).mean())
    return output[..., :-1].transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def idle_costs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within the context each forward pass over unpadded passages appends one cost per layer (1 for uniform attention and values); heads are not grouped."""
    _active.append([])
    try:
        with switched_attention(model, NAME):
            yield _active[-1]
    finally:
        _active.pop()
