"""Blocks from TransformerLens hooks: all rows of a layer at once. For maps and for passages of moderate length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.batches import Side
from sinkscope.models.model import Model
from sinkscope.sinks.blocks import AttentionBlock, ValueBlock
from sinkscope.sinks.residuals import residual_blocks
from sinkscope.sinks.statistics import Statistic


def capture(
    model: Model,
    passages: Sequence[list[int]],
    statistics: Sequence[Statistic],
    *,
    batch_size: int = 8,
    layers: Sequence[int] | None = None,
    side: Side = "right",
    on_progress: OnProgress | None = None,
) -> None:
    """Run the model's bridge over `passages` (token ids, BOS first) and feed every statistic.

    Passages are taken in order, padded per batch on the `side` given. Gradients are off; the model is left as it was.

    Raises:
        ModelError: a layer's pattern or values never came by, so that a result would be silently incomplete.
    """
    bridge = model.bridge
    wanted = list(range(model.n_layers)) if layers is None else list(layers)
    done = 0
    for batch in model.batches(passages, batch_size, side):
        values: dict[int, Tensor] = {}
        patterned: set[int] = set()

        def on_value(value: Tensor, hook: object, *, layer: int) -> None:
            values[layer] = _by_head(value, model)

        def on_pattern(pattern: Tensor, hook: object, *, layer: int) -> None:
            patterned.add(layer)
            if layer not in values:
                return  # told below
            for row, span in enumerate(batch.spans):
                real, size = slice(span.start, span.stop), len(span)
                block = AttentionBlock(
                    layer,
                    done + row,
                    size,
                    range(pattern.shape[1]),
                    range(size),
                    range(size),
                    pattern[row, :, real, real].float(),
                    last=True,
                )
                for statistic in statistics:
                    statistic.update(ValueBlock(layer, done + row, values[layer][row, :, real]))
                    statistic.update(block)

        hooks = []
        for layer in wanted:
            hooks.append((f"blocks.{layer}.attn.v.hook_out", _bound(on_value, layer)))
            hooks.append((f"blocks.{layer}.attn.hook_pattern", _bound(on_pattern, layer)))
        with torch.no_grad(), residual_blocks(lambda: bridge.blocks, statistics, batch.spans, done):
            bridge.run_with_hooks(
                batch.ids,
                attention_mask=batch.mask.long(),
                position_ids=batch.position_ids,
                fwd_hooks=hooks,
                return_type=None,
            )
        for kind, fired in (("values", set(values)), ("pattern", patterned)):
            if missing := set(wanted) - fired:
                raise ModelError(
                    f"model {model.name!r}: TransformerLens gave no {kind} of layer {min(missing)}; capture it with `backend` stream"
                )
        done += len(batch.spans)
        if on_progress:
            on_progress(done, len(passages))


def unsupported_reason(model: Model) -> str | None:
    """Why TransformerLens cannot serve this model, or None if it can."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    name = type(model.hf).__name__
    return None if name in SUPPORTED_ARCHITECTURES else f"TransformerLens has no adapter for {name}"


def _by_head(value: Tensor, model: Model) -> Tensor:
    """Values as [batch, kv_head, position, d_head], from per-head or flat [batch, position, …] hooks."""
    if value.ndim == 4:
        return value.transpose(1, 2)
    return value.unflatten(-1, (model.n_kv_heads, -1)).transpose(1, 2)


def _bound(function: Callable[..., None], layer: int) -> Callable[[Tensor, object], None]:
    def hook_function(tensor: Tensor, hook: object) -> None:
        function(tensor, hook, layer=layer)

    return hook_function
