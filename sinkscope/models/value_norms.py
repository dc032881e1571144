"""Value vectors of a Hugging Face model, with gradients: what the value-norm term of an unlearning run is made of.

They are seen where every family hands them over, at transformers' attention interface, so they are per key-value head and
never repeated to query heads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sinkscope.errors import ModelError
from sinkscope.models.model import attention_implementation

_NAME = "sinkscope_values"


@dataclass
class _Recording:
    layers: Collection[int] | None
    values: dict[int, Tensor] = field(default_factory=dict)


_active: list[_Recording] = []


def _forward(module, query, key, value, attention_mask, **kwargs):  # type: ignore[no-untyped-def]
    running = _active[-1]
    if (
        odd := next((name for name in ("s_aux", "softcap") if kwargs.get(name) is not None), None)
    ) is not None:
        raise ModelError(
            f"{type(module).__name__} attends with {odd}, which recording its values would leave out; set value_norms.weight to 0"
        )
    if running.layers is None or module.layer_idx in running.layers:
        running.values.setdefault(module.layer_idx, value)  # gradient checkpointing comes by once more
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(_NAME, _forward)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def record_values(
    model: PreTrainedModel, layers: Collection[int] | None = None
) -> Iterator[dict[int, Float[Tensor, "batch kv_head position d_head"]]]:
    """Within the context a forward pass fills the yielded dictionary: layer -> value vectors, of all layers or of those in `layers`.

    Under gradient checkpointing the backward pass belongs into the context too. The attention kind is restored on exit.
    """
    _active.append(_Recording(layers))
    try:
        with attention_implementation(model, _NAME):
            yield _active[-1].values
    finally:
        _active.pop()


def first_real_tokens(mask: Bool[Tensor, "batch position"], first: int) -> Bool[Tensor, "batch position"]:
    """The first `first` real tokens of each row, whichever side the padding is on."""
    return mask & (mask.long().cumsum(-1) <= first)
