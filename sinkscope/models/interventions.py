"""Change what positions contribute to attention: mask them as keys, or scale their value vectors.

Both work per layer, in a plain forward pass and in generation with a key-value cache. Positions count from a
passage's first real token, on whichever side the padding is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.masking_utils import sdpa_mask

from sinkscope.errors import ModelError
from sinkscope.models.attention import attention_hook, supports_attention_hooks
from sinkscope.models.model import Model

Positions = Sequence[int] | Sequence[Sequence[int]]
"""Positions in every passage of a batch, or a sequence of positions for each of its rows."""


def mask_keys(
    model: Model, positions: Positions, *, layers: Sequence[int] | None = None
) -> AbstractContextManager[None]:
    """Within the context no later query of `layers` (by default all) attends to `positions`.

    Each position still attends to itself. The softmax distributes the attention over the remaining keys.

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
    intervention = _Intervention(rows, range(model.n_layers) if layers is None else layers, factor)
    with attention_hook(model.hf, intervention.attend, intervention.make_mask):
        yield
    if not intervention.has_changed_output:
        raise ModelError(
            f"model {model.name!r}: the intervention on positions {rows[0]} changed nothing; "
            "check `positions` and `layers`"
        )


class _Intervention:
    """Attention in fp32 with masked keys (`factor` None) or scaled values.

    It has a softmax of its own in addition to that of `attention_tiles`: gradients and a key-value cache are
    needed here, and results stay the same to the last bit (scores are scaled after the product).
    """

    def __init__(self, positions: list[list[int]], layers: Sequence[int], factor: float | None) -> None:
        self._positions = positions
        self._layers = layers
        self._factor = factor
        self._affected: Bool[Tensor, "batch key"]
        self.has_changed_output = False

    def make_mask(
        self, *, batch_size: int, kv_length: int, kv_offset: int = 0, **options: Any
    ) -> Bool[Tensor, "batch 1 query key"]:
        """sdpa's mask, always as a matrix; on the way, find the columns of `positions` in this batch."""
        options["allow_is_causal_skip"] = False
        mask = sdpa_mask(batch_size=batch_size, kv_length=kv_length, kv_offset=kv_offset, **options)
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
        group = query.shape[1] // key.shape[1]
        scaling, softcap, s_aux = (options.get(name) for name in ("scaling", "softcap", "s_aux"))
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

        values = value.float()
        if int(module.layer_idx) not in self._layers:  # type: ignore[arg-type]
            return output(attention_mask, values).to(query.dtype).contiguous(), None
        changed = output(*self._change(attention_mask, values))
        if not self.has_changed_output:
            with torch.no_grad():
                self.has_changed_output = not torch.equal(changed, output(attention_mask, values))
        return changed.to(query.dtype).contiguous(), None

    def _change(self, mask: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The mask and the values with the intervention on them."""
        n_query, n_key = mask.shape[-2], values.shape[-2]
        affected = self._affected[:, -n_key:]
        if self._factor is not None:
            return mask, torch.where(affected[:, None, :, None], self._factor, 1.0) * values
        keys = torch.arange(n_key, device=mask.device)
        is_itself = keys[n_key - n_query :, None] == keys
        return mask & ~(affected[:, None, None, :] & ~is_itself), values
