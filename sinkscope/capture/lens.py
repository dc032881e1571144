"""Blocks from TransformerLens hooks: all rows of a layer at once. For maps and for passages of moderate length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sinkscope.capture.blocks import AttentionBlock, ValueBlock
from sinkscope.capture.reducers import Reducer
from sinkscope.errors import ModelError
from sinkscope.models import Model
from sinkscope.progress import Report


def capture(
    model: Model,
    passages: Sequence[list[int]],
    reducers: Sequence[Reducer],
    *,
    batch_size: int = 8,
    layers: Sequence[int] | None = None,
    report: Report | None = None,
) -> None:
    """Run the model's bridge over `passages` (token ids, BOS first) and feed every reducer.

    Passages are taken in order, right-padded per batch. Gradients are off; the model is left as it was.

    Raises:
        ModelError: a layer's pattern or values never came by, so that a result would be silently incomplete.
    """
    bridge = model.bridge
    wanted = list(range(model.n_layers)) if layers is None else list(layers)
    for start in range(0, len(passages), batch_size):
        batch = passages[start : start + batch_size]
        ids, mask = pad_right(batch, model.tokenizer.pad_token_id or 0, model.device)
        fired: set[tuple[str, int]] = set()

        def on_value(value: Tensor, hook: object, *, layer: int) -> None:
            fired.add(("value", layer))
            block = ValueBlock(layer, _by_head(value, model), mask)
            for reducer in reducers:
                reducer.update(block)

        def on_pattern(pattern: Tensor, hook: object, *, layer: int) -> None:
            fired.add(("pattern", layer))
            block = AttentionBlock(layer, range(pattern.shape[-2]), pattern.float(), mask)
            for reducer in reducers:
                reducer.update(block)

        hooks = []
        for layer in wanted:
            hooks.append((f"blocks.{layer}.attn.v.hook_out", _bound(on_value, layer)))
            hooks.append((f"blocks.{layer}.attn.hook_pattern", _bound(on_pattern, layer)))
        with torch.no_grad():
            bridge.run_with_hooks(ids, attention_mask=mask.long(), fwd_hooks=hooks, return_type=None)
        missing = {(kind, layer) for kind in ("value", "pattern") for layer in wanted} - fired
        if missing:
            kind, layer = min(missing)
            raise ModelError(f"model {model.name!r}: TransformerLens gave no {kind} of layer {layer}; this architecture cannot be captured through hooks")
        if report:
            report(min(start + batch_size, len(passages)), len(passages))


def pad_right(passages: Sequence[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask of real tokens, both [batch, position]. Causal attention never looks right, so real rows are unaffected."""
    length = max(map(len, passages))
    ids = torch.tensor([row + [pad_id] * (length - len(row)) for row in passages], device=device)
    mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in passages], device=device)
    return ids, mask


def _by_head(value: Tensor, model: Model) -> Tensor:
    """Values as [batch, kv_head, position, d_head], from per-head or flat [batch, position, …] hooks."""
    if value.ndim == 4:
        return value.transpose(1, 2)
    config = model.hf.config.get_text_config()
    n_kv = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return value.unflatten(-1, (n_kv, -1)).transpose(1, 2)


def _bound(function: Callable[..., None], layer: int) -> Callable[[Tensor, object], None]:
    def hook_function(tensor: Tensor, hook: object) -> None:
        function(tensor, hook, layer=layer)

    return hook_function
