"""Hand the residual stream after each layer to the statistics that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from sinkscope.models.hidden_states import layer_outputs
from sinkscope.sinks.blocks import ResidualBlock
from sinkscope.sinks.statistics import Statistic


def residual_blocks(
    layers: Callable[[], Iterable[nn.Module]],
    statistics: Sequence[Statistic],
    spans: Sequence[range],
    first_passage: int,
) -> AbstractContextManager[None]:
    """Within the context every layer's output goes, passage by passage, to the statistics with `residual = True`.

    Args:
        layers: called only if there is such a statistic.
        spans: the columns of each row of the batch that hold a passage.
        first_passage: the number of the batch's first passage.
    """
    receivers = [statistic for statistic in statistics if getattr(statistic, "residual", False)]
    if not receivers:
        return nullcontext()

    def receive(layer: int, output: Tensor) -> None:
        for row, span in enumerate(spans):
            block = ResidualBlock(layer, first_passage + row, output[row, span.start : span.stop])
            for statistic in receivers:
                statistic.update(block)

    return layer_outputs(layers(), receive)
