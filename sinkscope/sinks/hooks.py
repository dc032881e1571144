"""The `hooks` backend: TransformerLens hooks read all rows of a layer at once, for moderate lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sinkscope.errors import ModelError, first_line
from sinkscope.models.device_map import ON_DEVICES, is_dispatched
from sinkscope.models.model import Model
from sinkscope.models.padding import PaddedBatch, differs
from sinkscope.sinks.capture import (
    AttentionBlock,
    Backend,
    PatternCheck,
    Recorder,
    ValueBlock,
    Visibility,
    VisibleKeys,
)
from sinkscope.sinks.probing import make_probe

Hook = Callable[..., Tensor | None]
"""Called with the tensor and `hook`, its hook point; what it returns replaces the tensor."""
VALUE, PATTERN, QUERY, OUTPUT = "v.hook_out", "hook_pattern", "q.hook_out", "o.hook_in"
"""Hooks of an attention layer; the last is what the heads give to the output projection."""


class HooksBackend(Backend):
    """Reads the whole pattern of a layer from the model's TransformerLens bridge."""

    name = "hooks"

    def _capture_batch(self, model: Model, batch: PaddedBatch, recorder: Recorder) -> Visibility:
        hooks = _Hooks(model, recorder)
        with recorder.residual_blocks(lambda: model.bridge.blocks):
            _run(model, batch, hooks.by_name())
        hooks.check_complete()
        return {} if recorder.longest is None else _visible_keys(model, batch, hooks.attended)

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:
        """Also compares the outputs of the bridge and of the model, and its values with what heads give."""
        from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

        name = type(model.hf).__name__
        if is_dispatched(model.hf):
            return f"it is {ON_DEVICES}"
        if name not in SUPPORTED_ARCHITECTURES:
            return f"TransformerLens has no adapter for {name}"
        batch = make_probe(model, tokens)
        try:
            with torch.no_grad(), model.eval_mode():
                return _check_bridge(model, batch)
        except ModelError as error:
            return f"TransformerLens runs {name} in another way ({error})"
        except Exception as error:  # of many types, from its adapters
            return f"TransformerLens cannot run {name} ({type(error).__name__}: {first_line(error)[:120]})"


def _run(model: Model, batch: PaddedBatch, hooks: Sequence[tuple[str, Hook]]) -> Tensor:
    """A pass of the bridge; returns logits. Positions are left to the model, as padding is on the right."""
    return model.bridge.run_with_hooks(
        batch.ids, attention_mask=batch.mask.long(), fwd_hooks=list(hooks), return_type="logits"
    )


def _name(layer: int, hook: str) -> str:
    return f"blocks.{layer}.attn.{hook}"


def _by_head(tensor: Tensor, n_heads: int) -> Float[Tensor, "batch position head d_head"]:
    return tensor if tensor.ndim == 4 else tensor.unflatten(-1, (n_heads, -1))


def _check_bridge(model: Model, batch: PaddedBatch) -> str | None:
    """Why the bridge does not show what the model computes, or None."""
    name = type(model.hf).__name__
    found: dict[str, Tensor] = {}
    hooks = [
        (_name(layer, hook), lambda tensor, hook: found.__setitem__(hook.name, tensor.detach().float()))
        for layer in model.attention_layers
        for hook in (VALUE, PATTERN, OUTPUT)
    ]
    if missing := [hook for hook, _ in hooks if hook not in model.bridge.hook_dict]:
        return f"TransformerLens has no {missing[0]} of {name}"
    logits = _run(model, batch, hooks)
    own = model.hf(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False).logits
    if differs(logits, own, batch.mask):
        return f"TransformerLens gives other outputs than {name}"
    if missing := [hook for hook, _ in hooks if hook not in found]:
        return f"TransformerLens does not read {missing[0]} of {name}"
    check = PatternCheck(model)
    for layer in model.attention_layers:
        pattern = found[_name(layer, PATTERN)]
        values = _by_head(found[_name(layer, VALUE)], model.n_kv_heads).transpose(1, 2)
        for row, length in enumerate(map(len, batch.spans)):
            part = pattern[row, :, :length, :length]
            rows = torch.arange(length)
            check(AttentionBlock(layer, row, length, range(len(part)), rows, range(length), part, last=True))
        group = pattern.shape[1] // values.shape[1]
        mixed = pattern @ values.repeat_interleave(group, 1)
        heads = _by_head(found[_name(layer, OUTPUT)], pattern.shape[1])
        if differs(mixed.transpose(1, 2).flatten(2), heads.flatten(2), batch.mask, model.hf.dtype):
            return f"{name} changes its values after TransformerLens reads them"
    return None


def _visible_keys(
    model: Model, batch: PaddedBatch, attended: dict[int, Bool[Tensor, "query key"]]
) -> Visibility:
    """By layer, from the keys with attention in the longest passage of `batch`.

    Attention can be too small for a number, so where some key has none the passage is read again with
    queries of zero, which attend to all keys that they can.
    """
    length = max(map(len, batch.spans))
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    limited = [layer for layer, matrix in attended.items() if not torch.equal(matrix, causal)]
    if limited:
        row = [len(span) for span in batch.spans].index(length)
        alone = PaddedBatch.pad([batch.ids[row, :length].tolist()], 0, device=model.device)
        hooks: list[tuple[str, Hook]] = []
        for layer in limited:
            hooks.append((_name(layer, QUERY), lambda query, hook: torch.zeros_like(query)))
            hooks.append((_name(layer, PATTERN), partial(_keep_attended, attended, layer)))
        _run(model, alone, [hook for hook in hooks if hook[0] in model.bridge.hook_dict])
    distinct: list[Tensor] = []
    visible: Visibility = {}
    for layer, matrix in attended.items():
        if torch.equal(matrix, causal):
            visible[layer] = None
            continue
        same = next((each for each in distinct if torch.equal(each, matrix)), None)
        if same is None:
            distinct.append(same := matrix)
        visible[layer] = _from_matrix(same)
    return visible


def _keep_attended(attended: dict[int, Tensor], layer: int, pattern: Tensor, hook: object) -> None:
    attended[layer] = (pattern[0] > 0).any(0).cpu()


def _from_matrix(matrix: Bool[Tensor, "query key"]) -> VisibleKeys:
    return lambda rows, n_keys: matrix[rows, :n_keys]


class _Hooks:
    """Hooks for one batch, which keep each layer's values until its pattern comes.

    `attended` has the keys with attention in any head of each layer, of the recorder's longest passage.
    """

    def __init__(self, model: Model, recorder: Recorder) -> None:
        self.model = model
        self.recorder = recorder
        self.attended: dict[int, Bool[Tensor, "query key"]] = {}
        self._values: dict[int, Float[Tensor, "batch kv_head position d_head"]] = {}
        self._layers_with_pattern: set[int] = set()

    def by_name(self) -> list[tuple[str, Hook]]:
        return [
            hook
            for layer in self.model.attention_layers
            for hook in (
                (_name(layer, VALUE), partial(self._on_value, layer)),
                (_name(layer, PATTERN), partial(self._on_pattern, layer)),
            )
        ]

    def check_complete(self) -> None:
        for name, recorded in (("values", set(self._values)), ("pattern", self._layers_with_pattern)):
            if missing := set(self.model.attention_layers) - recorded:
                raise ModelError(
                    f"model {self.model.name!r}: TransformerLens gave no {name} of layer {min(missing)}; "
                    "use `backend` tiled"
                )

    def _on_value(self, layer: int, value: Tensor, hook: object) -> None:
        self._values[layer] = _by_head(value, self.model.n_kv_heads).transpose(1, 2)

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
            if row == self.recorder.longest:
                self.attended[layer] = (part > 0).any(0).cpu()
