"""Replace a model's attention for a while: the only module that registers with transformers' interface.

An `AttentionHook` is a pair of functions, one that makes a layer's mask and one that computes its output.
`attention_hook` registers them under a name of their own, so the state of a hook is the hook itself: captures
of different models may run in different threads, and contexts may be nested. The hooks of this package:

- `sinkscope.sinks.tiled`: hand the attention pattern to statistics, tile by tile;
- `sinkscope.models.interventions`: mask positions as keys, or scale their value vectors;
- `sinkscope.models.value_norms`: record value vectors with their gradients;
- `sinkscope.models.attention_penalty`: an auxiliary loss on attention.

Example:
    class CountQueries(AttentionHook):
        def attend(self, module, query, key, value, attention_mask, **options):
            self.n_queries = query.shape[2]
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)

    with attention_hook(model, CountQueries()) as hook:
        model(input_ids)
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from sinkscope.errors import ModelError

_PREFIX = "sinkscope_hook"
_lock = threading.Lock()
"""Held while a model's attention implementation is switched."""


class AttentionHook:
    """A mask function and an attention function, with the signatures of transformers' attention interface."""

    def make_mask(self, *args: Any, **options: Any) -> Any:
        """The `attention_mask` of `attend`: by default sdpa's boolean matrix, or None if plainly causal."""
        return sdpa_mask(*args, **options)

    def attend(
        self,
        module: nn.Module,
        query: Float[Tensor, "batch head query d_head"],
        key: Float[Tensor, "batch kv_head key d_head"],
        value: Float[Tensor, "batch kv_head key d_head"],
        attention_mask: Any,
        **options: Any,
    ) -> tuple[Float[Tensor, "batch query head d_head"], None]:
        """The output of one layer; query and key come after rotary embedding."""
        raise NotImplementedError


Hook = TypeVar("Hook", bound=AttentionHook)


def supports_attention_hooks(model: PreTrainedModel) -> bool:
    """Whether the model's attention goes through transformers' attention interface."""
    return model._can_set_attn_implementation()


@contextmanager
def attention_hook(model: PreTrainedModel, hook: Hook) -> Iterator[Hook]:
    """Within the context the model attends by `hook`; on exit, also after an error, as before.

    A nested context on the same model replaces the outer hook until it exits. Under gradient checkpointing
    the backward pass belongs into the context too.

    Raises:
        ModelError: the model does not attend through transformers' interface, or another thread hooks it now.
    """
    if not supports_attention_hooks(model):
        raise ModelError(f"{type(model).__name__} does not attend through transformers' attention interface")
    thread = f"{_PREFIX}_{threading.get_ident()}_"
    name = thread + uuid.uuid4().hex
    with _lock:
        previous = model.config._attn_implementation
        if previous.startswith(_PREFIX) and not previous.startswith(thread):
            raise ModelError(
                f"the attention of this {type(model).__name__} is hooked in another thread; "
                "load one model per thread"
            )
        AttentionInterface.register(name, hook.attend)
        AttentionMaskInterface.register(name, hook.make_mask)
        model.set_attn_implementation(name)
    try:
        yield hook
    finally:
        with _lock:
            model.set_attn_implementation(previous)
            AttentionInterface._global_mapping.pop(name)  # transformers has no function that unregisters
            AttentionMaskInterface._global_mapping.pop(name)
