"""A small price on looking at what carries something, so that sinks form in minutes instead of over billions of tokens.

Large models learn to park idle heads on a token with small values; a model of a million parameters, trained for minutes,
hardly did in our attempts (α of BOS reached 0.3 at most). The idle cost makes the same pressure explicit: per head and query, the
attention-weighted mean of the value norms, relative to the head's mean value norm over the passage. Where heads park is left to training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from sinkscope.models import switched_attention

_NAME = "sinkscope_idle_cost"
_active: list[list[Tensor]] = []


def _forward(module, query, key, value, attention_mask, scaling=None, **kwargs):  # type: ignore[no-untyped-def]
    norms = value.norm(dim=-1, keepdim=True)
    with_norms = torch.cat([value, norms], dim=-1)
    output = torch.nn.functional.scaled_dot_product_attention(query, key, with_norms, is_causal=True, scale=scaling)
    _active[-1].append((output[..., -1] / norms.mean(2)).mean())
    return output[..., :-1].transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _forward)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def idle_costs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within the context each forward pass over unpadded passages appends one cost per layer (1 for uniform attention and values)."""
    _active.append([])
    try:
        with switched_attention(model, _NAME):
            yield _active[-1]
    finally:
        _active.pop()
