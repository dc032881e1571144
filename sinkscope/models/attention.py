"""Replace a model's attention for a while: mask keys, scale values, record values, penalize attention.

No other module registers with transformers' attention interface.

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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sinkscope.errors import ModelError
from sinkscope.models.layers import LayerNumbers
from sinkscope.models.model import Model

Attend = Callable[..., tuple[Tensor, None]]
"""transformers' attention function: (module, query [batch, head, query, d_head], key and value
[batch, kv_head, key, d_head], attention_mask, **options) -> (output [batch, query, head, d_head], None)."""
Positions = Sequence[int] | Sequence[Sequence[int]]
"""Positions in every passage of a batch, or a sequence of positions for each of its rows. They count from a
passage's first real token, on whichever side the padding is."""
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


def mask_keys(
    model: Model, positions: Positions, *, layers: Sequence[int] | None = None
) -> AbstractContextManager[None]:
    """Within the context no later query of `layers` (by default all) attends to `positions`.

    Each position still attends to itself. The softmax distributes the attention over the remaining keys, also
    in generation with a key-value cache.

    Raises:
        ModelError: the model does not attend through transformers' interface, or, on exit, nothing was
            changed.
    """
    return _intervene(model, positions, layers, None)


def scale_values(
    model: Model, positions: Positions, factor: float, *, layers: Sequence[int] | None = None
) -> AbstractContextManager[None]:
    """Within the context the value vectors at `positions` are multiplied by `factor`; see `mask_keys`."""
    return _intervene(model, positions, layers, factor)


@contextmanager
def _intervene(
    model: Model, positions: Positions, layers: Sequence[int] | None, factor: float | None
) -> Iterator[None]:
    if not supports_attention_hooks(model.hf):
        raise ModelError(
            f"model {model.name!r}: {type(model.hf).__name__} does not attend through transformers' "
            "attention interface, so its positions cannot be masked or scaled; give another model"
        )
    rows = [[row] if isinstance(row, int) else list(row) for row in positions]
    if not positions or isinstance(positions[0], int):
        rows = [[position for row in rows for position in row]]
    attending = model.attention_layers
    intervention = _Intervention(rows, attending, attending if layers is None else layers, factor)
    with attention_hook(model.hf, intervention.attend, intervention.make_mask):
        yield
    if not intervention.has_changed:
        raise ModelError(
            f"model {model.name!r}: the intervention on positions {rows[0]} changed nothing; "
            "check `positions` and `layers`"
        )


class _Intervention:
    """Attention in fp32 with masked keys (`factor` None) or scaled values.

    It has a softmax of its own in addition to that of `attention_tiles`: gradients and a key-value cache are
    needed here, and results stay the same to the last bit (scores are scaled after the product).
    """

    def __init__(
        self,
        positions: list[list[int]],
        attending: Sequence[int],
        layers: Sequence[int],
        factor: float | None,
    ) -> None:
        self._numbers = LayerNumbers(attending)
        self._positions = positions
        self._layers = layers
        self._factor = factor
        self._affected: Bool[Tensor, "batch key"]
        self.has_changed = False

    def make_mask(
        self, *, batch_size: int, kv_length: int, kv_offset: int = 0, **options: Any
    ) -> Bool[Tensor, "batch 1 query key"] | None:
        """sdpa's mask, always as a matrix; on the way, find the columns of `positions` in this batch."""
        self._numbers.begin_pass()
        options["allow_is_causal_skip"] = False
        mask = sdpa_mask(batch_size=batch_size, kv_length=kv_length, kv_offset=kv_offset, **options)
        if mask is None:  # of cross-attention that a decoder without an encoder leaves out
            return None
        attention_mask = options.get("attention_mask")
        if attention_mask is None:
            attention_mask = torch.ones(batch_size, kv_offset + kv_length, device=mask.device)
        real = attention_mask.bool()
        position = real.long().cumsum(-1) - 1
        rows = self._positions if len(self._positions) == batch_size else self._positions[:1] * batch_size
        affected = [torch.isin(position[i], position.new_tensor(row)) for i, row in enumerate(rows)]
        self._affected = real & torch.stack(affected)
        return mask

    def attend(
        self,
        module: nn.Module,
        query: Float[Tensor, "batch head query d_head"],
        key: Float[Tensor, "batch kv_head key d_head"],
        value: Float[Tensor, "batch kv_head key d_head"],
        attention_mask: Bool[Tensor, "batch 1 query key"],
        **options: Any,
    ) -> tuple[Float[Tensor, "batch query head d_head"], None]:
        values = value.float()
        if self._numbers.of_call(module) in self._layers:
            attention_mask, values = self._change(attention_mask, values)
        group = query.shape[1] // key.shape[1]
        scaling, softcap, s_aux = (options.get(name) for name in ("scaling", "softcap", "s_aux"))
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query.float().unflatten(1, (-1, group)) @ key.float()[:, :, None].mT * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if (bias := options.get("position_bias")) is not None:
            scores = scores + bias.float().unflatten(1, (-1, group))
        scores = scores.masked_fill(~attention_mask[:, :, None], torch.finfo(torch.float32).min)
        if s_aux is not None:
            sink = s_aux.float().view(1, -1, group, 1, 1).expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, sink], -1)
        pattern = scores.softmax(-1)[..., : key.shape[-2]]
        output = (pattern @ values[:, :, None]).flatten(1, 2).transpose(1, 2)
        return output.to(query.dtype).contiguous(), None

    def _change(self, mask: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The mask and the values with the intervention on them."""
        n_query, n_key = mask.shape[-2], values.shape[-2]
        affected = self._affected[:, -n_key:].to(values.device)  # of this layer, which may be another
        if self._factor is not None:
            scaled = torch.where(affected[:, None, :, None], self._factor, 1.0) * values
            self.has_changed = self.has_changed or not torch.equal(scaled, values)
            return mask, scaled
        keys = torch.arange(n_key, device=mask.device)
        is_itself = keys[n_key - n_query :, None] == keys
        allowed = mask & ~(affected[:, None, None, :] & ~is_itself)
        self.has_changed = self.has_changed or not torch.equal(allowed, mask)
        return allowed, values


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
        if layer < 0:
            raise ModelError(
                f"{type(module).__name__} is shared by several layers, so its values cannot be recorded; "
                "set value_norms.weight to 0"
            )
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
