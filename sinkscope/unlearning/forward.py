"""One forward pass that stops where nothing more is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.capture.residuals import layers_of
from sinkscope.unlearning.objectives.batch import Batch, Outputs


class _Stop(Exception):  # not an error: nothing behind this layer is needed
    pass


def forward(model: PreTrainedModel, batch: Batch, *, logits: bool = True, layer: int | None = None, whole: bool = False) -> Outputs:
    """The logits, the hidden states behind `layer`, or both.

    Args:
        whole: run to the end though `logits` are not asked for, because something else is recorded on the way.
    """
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)
        if not (logits or whole):
            raise _Stop

    handle = None if layer is None else layers_of(model)[layer].register_forward_hook(keep)
    run = model if logits else model.base_model
    result = None
    try:
        result = run(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), use_cache=False)
    except _Stop:
        pass
    finally:
        if handle:
            handle.remove()
    return Outputs(result.logits if logits and result is not None else None, seen[0] if seen else None)
