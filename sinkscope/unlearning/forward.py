"""One forward pass that computes no more than what is requested."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.models.attention import mask_keys
from sinkscope.models.hidden_states import decoder_layers, layer_outputs, truncate_layers
from sinkscope.models.model import Model
from sinkscope.unlearning.batch import Batch, Outputs


def forward(
    model: PreTrainedModel,
    batch: Batch,
    *,
    logits: bool = True,
    layer: int | None = None,
    run_all_layers: bool = False,
) -> Outputs:
    """The logits, the hidden states after `layer`, or both; without logits the pass ends at `layer`.

    Args:
        run_all_layers: run all layers though no logits are requested, because something else is recorded.
    """
    options: dict[str, Any] = {}
    if not logits and "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    if not batch.attention_mask[:, 0].all():  # padded on the left
        options["position_ids"] = batch.position_ids
    hidden: list[Tensor] = []
    with ExitStack() as stack:
        if layer is not None:
            layers = decoder_layers(model)
            stack.enter_context(layer_outputs([layers[layer]], lambda _, output: hidden.append(output)))
            if not (logits or run_all_layers):
                stack.enter_context(truncate_layers(layers, layer + 1))
        result = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), use_cache=False, **options
        )
    return Outputs(result.logits.float() if logits else None, hidden[0] if hidden else None)


def autocast(device: torch.device, mixed: bool) -> torch.autocast:
    """Autocast to bfloat16 if `mixed`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed)


def mask_positions(model: PreTrainedModel, positions: Sequence[int] | None) -> AbstractContextManager[None]:
    """Within the context no later position attends to `positions`, if any.

    With gradient checkpointing the backward pass, which recomputes activations, must be in the context, too.
    """
    return mask_keys(Model("in training", model, None), positions) if positions else nullcontext()
