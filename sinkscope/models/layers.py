"""Which layers of a model attend, and which of them a call of attention belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedConfig

WITHOUT_ATTENTION = {"linear_attention", "mamba", "recurrent", "conv", "mlp", "moe"}
"""Types of layers in transformers' configurations that have no attention pattern."""


def count_layers(config: PreTrainedConfig) -> int:
    """The layers of the decoder (of an encoder-decoder, `num_hidden_layers` is the encoder's)."""
    return getattr(config, "decoder_layers", None) or config.num_hidden_layers


def find_attention_layers(config: PreTrainedConfig) -> list[int]:
    """The layers of the decoder that attend, ascending; in hybrids others are recurrent or convolutions.

    All layers if the configuration does not give a type for each.
    """
    n_layers = count_layers(config)
    types = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    if types is None or len(types) < n_layers:
        return list(range(n_layers))
    return [layer for layer in range(n_layers) if types[layer] not in WITHOUT_ATTENTION]


class LayerNumbers:
    """The layer of each call of attention in a forward pass.

    A module that several layers share (as in Zamba2) has no number of its own; its calls are those of the
    layers that attend, in their order.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self._layers = layers
        self._n_calls = 0

    def begin_pass(self) -> None:
        self._n_calls = 0

    def of_call(self, module: nn.Module) -> int | None:
        """The layer of the next call; None if the module is not a layer's, or there are more calls."""
        number = getattr(module, "layer_idx", None)
        call = self._n_calls
        self._n_calls += 1
        if number is None or number >= 0:
            return number
        return self._layers[call] if call < len(self._layers) else None
