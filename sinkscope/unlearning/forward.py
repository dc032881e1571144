"""One forward pass that stops where nothing more is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.models.hidden_states import decoder_layers
from sinkscope.models.interventions import mask_keys
from sinkscope.models.model import Model
from sinkscope.unlearning.objectives.batch import Batch, Outputs


def forward(
    model: PreTrainedModel,
    batch: Batch,
    *,
    logits: bool = True,
    layer: int | None = None,
    whole: bool = False,
) -> Outputs:
    """The logits, the hidden states behind `layer`, or both.

    Args:
        whole: run to the end though `logits` are not asked for, because something else is recorded on the way.
    """
    seen: list[Tensor] = []
    layers = None if layer is None else decoder_layers(model)
    handle = None
    if layers is not None and layer is not None:
        handle = layers[layer].register_forward_hook(
            lambda module, inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
    short = (
        _only(layers, layer + 1)
        if layers is not None and layer is not None and not (logits or whole)
        else nullcontext()
    )
    options: dict[str, Any] = {}
    if not logits and "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    if not batch.attention_mask[:, 0].all():  # padded on the left
        options["position_ids"] = batch.position_ids
    try:
        with short:
            result = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask.long(),
                use_cache=False,
                **options,
            )
    finally:
        if handle:
            handle.remove()
    return Outputs(result.logits.float() if logits else None, seen[0] if seen else None)


def autocast(device: torch.device, mixed: bool) -> torch.autocast:
    """bfloat16 where torch sees fit, if `mixed`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed)


def mask_positions(model: PreTrainedModel, positions: Sequence[int] | None) -> AbstractContextManager[None]:
    """Within the context no later position attends to `positions`, if any are given; the backward pass belongs into it where activations are computed again."""
    return mask_keys(Model("in training", model, None), positions) if positions else nullcontext()


@contextmanager
def _only(layers: torch.nn.ModuleList, count: int) -> Iterator[None]:
    """Within the context the model has its first `count` layers only."""
    all_layers = dict(layers._modules)
    for name in list(all_layers)[count:]:
        del layers._modules[name]
    try:
        yield
    finally:
        layers._modules.clear()
        layers._modules.update(all_layers)
