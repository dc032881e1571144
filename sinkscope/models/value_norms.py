"""Record a model's value vectors with their gradients, for the value-norm term of an unlearning run.

They are read at transformers' attention interface, so in every family they come per key-value head, not
repeated to query heads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sinkscope.errors import ModelError
from sinkscope.models.attention import AttentionHook, attention_hook


class _ValueRecorder(AttentionHook):
    """Attend by sdpa and keep the value vectors of some layers."""

    def __init__(self, layers: Collection[int] | None) -> None:
        self._layers = layers
        self.values: dict[int, Tensor] = {}

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        for name in ("s_aux", "softcap"):
            if options.get(name) is not None:
                raise ModelError(
                    f"{type(module).__name__} attends with {name}, which sdpa does not compute, so its "
                    "values cannot be recorded; set value_norms.weight to 0"
                )
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        if self._layers is None or layer in self._layers:
            self.values.setdefault(layer, value)  # gradient checkpointing calls a second time
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


@contextmanager
def record_values(
    model: PreTrainedModel, layers: Collection[int] | None = None
) -> Iterator[dict[int, Float[Tensor, "batch kv_head position d_head"]]]:
    """Within the context a forward pass fills the yielded dictionary: layer -> value vectors.

    Under gradient checkpointing the backward pass belongs into the context too.

    Args:
        layers: the layers to record; all by default.

    Raises:
        ModelError: attention has a softcap or learned sinks, or does not go through transformers' interface.
    """
    with attention_hook(model, _ValueRecorder(layers)) as recorder:
        yield recorder.values


def first_real_tokens(mask: Bool[Tensor, "batch position"], n: int) -> Bool[Tensor, "batch position"]:
    """The first `n` real tokens of each row, on whichever side the padding is."""
    return mask & (mask.long().cumsum(-1) <= n)
