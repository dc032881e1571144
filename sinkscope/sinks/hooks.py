"""The `hooks` backend: TransformerLens hooks read all rows of a layer at once, for moderate lengths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.errors import ModelError
from sinkscope.models.model import Model, PaddedBatch
from sinkscope.sinks.capture import AttentionBlock, Backend, Recorder, ValueBlock


class HooksBackend(Backend):
    """Reads the whole pattern of a layer from the model's TransformerLens bridge."""

    name = "hooks"

    def _capture_batch(self, model: Model, batch: PaddedBatch, recorder: Recorder) -> None:
        hooks = _Hooks(model, recorder)
        bridge = model.bridge
        with recorder.residual_blocks(lambda: bridge.blocks):
            bridge.run_with_hooks(
                batch.ids,
                attention_mask=batch.mask.long(),
                position_ids=batch.position_ids,
                fwd_hooks=hooks.by_name(),
                return_type=None,
            )
        hooks.check_complete()

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:  # noqa: ARG003
        from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

        name = type(model.hf).__name__
        return None if name in SUPPORTED_ARCHITECTURES else f"TransformerLens has no adapter for {name}"


class _Hooks:
    """Hooks for one batch, which keep each layer's values until its pattern comes."""

    def __init__(self, model: Model, recorder: Recorder) -> None:
        self.model = model
        self.recorder = recorder
        self._values: dict[int, Float[Tensor, "batch kv_head position d_head"]] = {}
        self._layers_with_pattern: set[int] = set()

    def by_name(self) -> list[tuple[str, partial[None]]]:
        return [
            hook
            for layer in range(self.model.n_layers)
            for hook in (
                (f"blocks.{layer}.attn.v.hook_out", partial(self._on_value, layer)),
                (f"blocks.{layer}.attn.hook_pattern", partial(self._on_pattern, layer)),
            )
        ]

    def check_complete(self) -> None:
        for name, recorded in (("values", set(self._values)), ("pattern", self._layers_with_pattern)):
            if missing := set(range(self.model.n_layers)) - recorded:
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
        for row, (passage, length) in enumerate(self.recorder.passages):
            self.recorder.update(ValueBlock(layer, passage, self._values[layer][row, :, :length]))
            part = pattern[row, :, :length, :length].float()
            rows, keys = torch.arange(length), range(length)
            self.recorder.update(AttentionBlock(layer, passage, length, heads, rows, keys, part, last=True))
