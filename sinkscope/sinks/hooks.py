"""Blocks from TransformerLens hooks: all rows of a layer at once, for passages of moderate length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model, Side
from sinkscope.sinks.blocks import AttentionBlock, ValueBlock
from sinkscope.sinks.statistics import Statistic, residual_blocks


def capture(
    model: Model,
    passages: Sequence[list[int]],
    statistics: Sequence[Statistic],
    *,
    batch_size: int = 8,
    layers: Sequence[int] | None = None,
    side: Side = "right",
    on_progress: OnProgress | None = None,
) -> None:  # 7 parameters, the same for every backend
    """Run the model's TransformerLens bridge over `passages` (token ids) and update every statistic.

    Passages are read in order, padded per batch on `side`. Gradients are off; the model is not changed.

    Raises:
        ModelError: a hook for the pattern or the values of a layer was not called.
    """
    bridge = model.bridge
    layers = range(model.n_layers) if layers is None else layers
    done = 0
    for batch in model.batches(passages, batch_size, side):
        recorder = _Recorder(model, statistics, batch.spans, done)
        with torch.no_grad(), residual_blocks(lambda: bridge.blocks, statistics, batch.spans, done):
            bridge.run_with_hooks(
                batch.ids,
                attention_mask=batch.mask.long(),
                position_ids=batch.position_ids,
                fwd_hooks=recorder.hooks(layers),
                return_type=None,
            )
        recorder.check_complete(layers)
        done += len(batch.spans)
        if on_progress:
            on_progress(done, len(passages))


def unsupported_reason(model: Model) -> str | None:
    """Why TransformerLens does not support this model, or None if it does."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    name = type(model.hf).__name__
    return None if name in SUPPORTED_ARCHITECTURES else f"TransformerLens has no adapter for {name}"


class _Recorder:
    """Hooks for one batch: keeps each layer's values until its pattern comes, then updates the statistics.

    Args:
        spans: the positions of each passage in its row of the batch.
        first: the number of the first passage.
    """

    def __init__(
        self, model: Model, statistics: Sequence[Statistic], spans: Sequence[range], first: int
    ) -> None:
        self.model = model
        self.statistics = statistics
        self.spans = spans
        self.first = first
        self._values: dict[int, Float[Tensor, "batch kv_head position d_head"]] = {}
        self._layers_with_pattern: set[int] = set()

    def hooks(self, layers: Sequence[int]) -> list[tuple[str, partial[None]]]:
        return [
            hook
            for layer in layers
            for hook in (
                (f"blocks.{layer}.attn.v.hook_out", partial(self._on_value, layer)),
                (f"blocks.{layer}.attn.hook_pattern", partial(self._on_pattern, layer)),
            )
        ]

    def check_complete(self, layers: Sequence[int]) -> None:
        for name, recorded in (("values", set(self._values)), ("pattern", self._layers_with_pattern)):
            if missing := set(layers) - recorded:
                raise ModelError(
                    f"model {self.model.name!r}: TransformerLens gave no {name} of layer {min(missing)}; "
                    "use `backend` tiled"
                )

    def _on_value(self, layer: int, value: Tensor, hook: object) -> None:
        if value.ndim < 4:  # [batch, position, kv_head × d_head]
            value = value.unflatten(-1, (self.model.n_kv_heads, -1))
        self._values[layer] = value.transpose(1, 2)

    def _on_pattern(self, layer: int, pattern: Float[Tensor, "batch head query key"], hook: object) -> None:
        self._layers_with_pattern.add(layer)
        if layer not in self._values:
            return  # `check_complete` raises the error
        heads = range(pattern.shape[1])
        for row, span in enumerate(self.spans):
            positions = slice(span.start, span.stop)
            rows = range(len(span))
            passage = self.first + row
            values = ValueBlock(layer, passage, self._values[layer][row, :, positions])
            part = pattern[row, :, positions, positions].float()
            attention = AttentionBlock(layer, passage, len(span), heads, rows, rows, part, last=True)
            for statistic in self.statistics:
                statistic.update(values)
                statistic.update(attention)
