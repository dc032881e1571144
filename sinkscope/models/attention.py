"""Replace a model's attention for a while: the only module that registers with transformers' interface.

Example:
    def count_queries(module, query, key, value, attention_mask, **options):
        counts.append(query.shape[2])
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)

    with attention_hook(model, count_queries):
        model(input_ids)
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sinkscope.errors import ModelError

Attend = Callable[..., tuple[Tensor, None]]
"""transformers' attention function: (module, query [batch, head, query, d_head], key and value
[batch, kv_head, key, d_head], attention_mask, **options) -> (output [batch, query, head, d_head], None)."""
AttentionPenalty = Callable[[Tensor], tuple[Tensor, Tensor | float]]
"""Values [batch, head, key, d_head] -> the cost of each key [batch, head, key, 1], and its divisor."""
_PREFIX = "sinkscope_hook"
_lock = threading.Lock()
"""Held while a model's attention implementation is switched."""


def supports_attention_hooks(model: PreTrainedModel) -> bool:
    """Whether the model's attention goes through transformers' attention interface."""
    return model._can_set_attn_implementation()


@contextmanager
def attention_hook(
    model: PreTrainedModel, attend: Attend, make_mask: Callable[..., Any] = sdpa_mask
) -> Iterator[None]:
    """Within the context the model attends by `attend`; on exit, also after an error, as before.

    Both functions are registered under a new name, so hooks of different models may run in different threads.
    A nested context on the same model replaces the outer hook until it exits. Under gradient checkpointing
    the backward pass belongs into the context too.

    Args:
        make_mask: makes the `attention_mask` of `attend`, as transformers' mask functions do; by default
            sdpa's boolean matrix, or None if plainly causal.

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
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, make_mask)
        model.set_attn_implementation(name)
    try:
        yield
    finally:
        with _lock:
            model.set_attn_implementation(previous)
            AttentionInterface._global_mapping.pop(name)  # transformers has no function that unregisters
            AttentionMaskInterface._global_mapping.pop(name)


@contextmanager
def record_values(
    model: PreTrainedModel, layers: Collection[int] | None = None
) -> Iterator[dict[int, Float[Tensor, "batch kv_head position d_head"]]]:
    """Within the context a forward pass fills the yielded dictionary: layer -> value vectors, with gradients.

    Raises:
        ModelError: attention has a softcap or learned sinks, or does not go through transformers' interface.
    """
    values: dict[int, Tensor] = {}

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        for name in ("s_aux", "softcap"):
            if options.get(name) is not None:
                raise ModelError(
                    f"{type(module).__name__} attends with {name}, which sdpa does not compute, so its "
                    "values cannot be recorded; set value_norms.weight to 0"
                )
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        if layers is None or layer in layers:
            values.setdefault(layer, value)  # gradient checkpointing calls a second time
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)

    with attention_hook(model, attend):
        yield values


def value_norm_penalty(value: Float[Tensor, "batch head key d_head"]) -> tuple[Tensor, Tensor | float]:
    """A position's value norm in units of the head's mean value norm.

    Sinks that form by themselves become stronger under it and their values smaller; where heads attend to is
    still left to training.
    """
    norms = value.norm(dim=-1, keepdim=True)
    return norms, norms.mean(2)


def first_token_penalty(value: Float[Tensor, "batch head key d_head"]) -> tuple[Tensor, Tensor | float]:
    """1 at the first position, 0 elsewhere: no sink can form there."""
    cost = torch.zeros_like(value[..., :1])
    cost[:, :, 0] = 1.0
    return cost, 1.0


@contextmanager
def attention_penalty(model: PreTrainedModel, penalty: AttentionPenalty) -> Iterator[list[Float[Tensor, ""]]]:
    """Within the context every forward pass appends an auxiliary loss per layer to the yielded list.

    It is Σ_k A[i, k] · cost[k], a mean over passages, heads and queries i. Passages are not padded and keys
    not grouped. With uniform attention and equal value norms `value_norm_penalty` gives 1.
    """
    penalties: list[Tensor] = []

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        cost, unit = penalty(value)
        extended = torch.cat([value, cost], dim=-1)  # one more dimension, which attention weights too
        output = nn.functional.scaled_dot_product_attention(
            query, key, extended, is_causal=True, scale=options.get("scaling")
        )
        penalties.append((output[..., -1] / unit).mean())
        return output[..., :-1].transpose(1, 2).contiguous(), None

    with attention_hook(model, attend):
        yield penalties
