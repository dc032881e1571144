"""Value norms of a Hugging Face model, with gradients: what the value-norm term of an unlearning run is made of.

The values are seen where every family hands them over, at transformers' attention interface, so they are per key-value head and
never repeated to query heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Bool, Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sinkscope.models import switched_attention

_NAME = "sinkscope_value_norms"
_active: list[dict[int, Tensor]] = []


def _forward(module, query, key, value, attention_mask, **kwargs):  # type: ignore[no-untyped-def]
    _active[-1][module.layer_idx] = value.float().norm(dim=-1)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(_NAME, _forward)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def recorded_value_norms(model: PreTrainedModel) -> Iterator[dict[int, Float[Tensor, "batch kv_head position"]]]:
    """Within the context each forward pass fills the yielded dictionary: layer -> ‖v‖₂. The attention kind is restored on exit."""
    _active.append({})
    try:
        with switched_attention(model, _NAME):
            yield _active[-1]
    finally:
        _active.pop()


def first_real(mask: Bool[Tensor, "batch position"], first: int) -> Bool[Tensor, "batch position"]:
    """The first `first` real tokens of each row, whichever side the padding is on."""
    return mask & (mask.long().cumsum(-1) <= first)
