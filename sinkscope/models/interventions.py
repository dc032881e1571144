"""Interfere with what positions can give: hide them as keys from all later queries, or scale their value vectors.

Both work inside transformers' attention interface, per layer, in a plain forward pass and in generation with a key-value cache. Positions
count from a passage's first real token, whichever side the padding is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from sinkscope.errors import ModelError
from sinkscope.models.model import Model, attention_implementation

NAME = "sinkscope_intervention"


@dataclass
class _Intervention:
    """One entry of `positions` for all rows of a batch, or one per row. `scale` None hides."""

    positions: Sequence[Sequence[int]]
    layers: frozenset[int]
    scale: float | None
    affected: Bool[Tensor, "batch key"] | None = None
    changed: set[int] = field(default_factory=set)


_active: list[_Intervention] = []


def mask_keys(
    model: Model, positions: Sequence[int] | Sequence[Sequence[int]], *, layers: Sequence[int] | None = None
) -> AbstractContextManager[None]:
    """Within the context no query after them attends to `positions` (a position still attends to itself); the rest of each row is renormalized by softmax.

    Args:
        positions: for every passage of a batch, or a sequence of positions for each of its rows.
        layers: all by default.

    Raises:
        ModelError: the model does not attend through transformers' interface, or, on leaving, the context changed nothing.
    """
    return _intervened(model, positions, layers, None)


def scale_values(
    model: Model,
    positions: Sequence[int] | Sequence[Sequence[int]],
    factor: float,
    *,
    layers: Sequence[int] | None = None,
) -> AbstractContextManager[None]:
    """Within the context the value vectors at `positions` are `factor` times as long; arguments and errors as for `mask_keys`."""
    return _intervened(model, positions, layers, factor)


@contextmanager
def _intervened(
    model: Model,
    positions: Sequence[int] | Sequence[Sequence[int]],
    layers: Sequence[int] | None,
    scale: float | None,
) -> Iterator[None]:
    if not model.hf._can_set_attn_implementation():
        raise ModelError(
            f"model {model.name!r}: {type(model.hf).__name__} does not attend through transformers' interface, so nothing can be masked in it"
        )
    each = [list(row) if isinstance(row, Sequence) else [row] for row in positions]
    by_row = (
        each
        if positions and isinstance(positions[0], Sequence)
        else [[position for row in each for position in row]]
    )
    intervention = _Intervention(
        by_row, frozenset(range(model.n_layers) if layers is None else layers), scale
    )
    _active.append(intervention)
    try:
        with attention_implementation(model.hf, NAME):
            yield
    finally:
        _active.pop()
    if not intervention.changed:
        raise ModelError(
            f"model {model.name!r}: the intervention on positions {by_row[0]} changed nothing; check positions and layers"
        )


def _mask(
    *,
    batch_size: int,
    kv_length: int,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    **others: Any,
) -> Tensor:
    """transformers' own mask as a matrix of booleans; notes on the way which keys are meant."""
    running = _active[-1]
    others |= {"allow_is_causal_skip": False}
    mask = sdpa_mask(
        batch_size=batch_size,
        kv_length=kv_length,
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        **others,
    )
    real = (
        torch.ones(batch_size, kv_offset + kv_length, dtype=torch.bool, device=mask.device)
        if attention_mask is None
        else attention_mask.bool()
    )
    position = real.long().cumsum(-1) - 1
    rows = running.positions if len(running.positions) == batch_size else [running.positions[0]] * batch_size
    running.affected = torch.stack(
        [
            real[i] & torch.isin(position[i], torch.tensor(rows[i], device=mask.device))
            for i in range(batch_size)
        ]
    )
    return mask


def _attend(
    module: torch.nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_head"],
    attention_mask: Bool[Tensor, "batch 1 query key"],
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Float[Tensor, " head"] | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "batch query head d_head"], None]:
    """transformers' attention function, in the open: scores, softmax, output; in fp32."""
    running, layer = _active[-1], int(module.layer_idx)  # type: ignore[arg-type]
    group = query.shape[1] // key.shape[1]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query.float().unflatten(1, (-1, group)) @ key.float()[:, :, None].mT * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)

    def output(allowed: Tensor, values: Tensor) -> Tensor:
        masked = scores.masked_fill(~allowed[:, :, None], torch.finfo(torch.float32).min)
        if s_aux is not None:
            sink = s_aux.float().view(1, -1, group, 1, 1).expand(*scores.shape[:-1], 1)
            masked = torch.cat([masked, sink], -1)
        pattern = masked.softmax(-1)[..., : scores.shape[-1]]
        return (pattern @ values[:, :, None]).flatten(1, 2).transpose(1, 2)

    plain = output(attention_mask, value.float())
    if layer not in running.layers:
        return plain.to(query.dtype).contiguous(), None
    assert running.affected is not None
    affected = running.affected[:, -key.shape[2] :]
    if running.scale is None:
        n_query, n_key = scores.shape[-2:]
        itself = torch.arange(n_key - n_query, n_key, device=query.device)[:, None] == torch.arange(
            n_key, device=query.device
        )
        changed = output(attention_mask & ~(affected[:, None, None, :] & ~itself), value.float())
    else:
        changed = output(
            attention_mask, torch.where(affected[:, None, :, None], running.scale, 1.0) * value.float()
        )
    if layer not in running.changed and not torch.equal(plain, changed):
        running.changed.add(layer)
    return changed.to(query.dtype).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)
