"""The residual stream after each layer, for statistics that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from sinkscope.errors import ModelError
from sinkscope.sinks.blocks import ResidualBlock
from sinkscope.sinks.statistics import Statistic


def decoder_layers(network: PreTrainedModel) -> torch.nn.ModuleList:
    """The model's decoder layers, in order.

    Raises:
        ModelError: no list of modules is as long as the model is deep, or more than one is.
    """
    depth = network.config.get_text_config().num_hidden_layers
    found = [
        module
        for module in network.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth
    ]
    outermost = [
        module
        for module in found
        if not any(module is not other and module in set(other.modules()) for other in found)
    ]
    if len(outermost) != 1:
        raise ModelError(
            f"{type(network).__name__}: its {depth} layers could not be told from other lists of modules; its residual stream cannot be read"
        )
    return outermost[0]


@contextmanager
def residual_blocks(
    layers: Callable[[], Iterable[torch.nn.Module]],
    statistics: Sequence[Statistic],
    spans: Sequence[range],
    first: int,
) -> Iterator[None]:
    """Within the context every layer hands its output to the statistics that have `residual` set, passage by passage; `layers` is asked only if one has."""
    asking = [statistic for statistic in statistics if getattr(statistic, "residual", False)]
    handles = []
    if asking:
        for layer, module in enumerate(layers()):

            def hand_over(module: torch.nn.Module, inputs: Any, output: Any, *, layer: int = layer) -> None:
                residual = output[0] if isinstance(output, tuple) else output
                for row, span in enumerate(spans):
                    for statistic in asking:
                        statistic.update(
                            ResidualBlock(layer, first + row, residual[row, span.start : span.stop])
                        )

            handles.append(module.register_forward_hook(hand_over))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
