"""Decoder layers of many families, their outputs, and networks that end early."""

from __future__ import annotations

import pytest
import torch

from sinkscope.errors import ModelError
from sinkscope.models.hidden_states import decoder_layers, layer_outputs, truncate_layers
from tests.sinks.families import CONFIGS, network

TOKENS = torch.randint(3, 400, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", CONFIGS)
def test_outputs_of_all_layers_are_the_hidden_states(kind: str) -> None:
    model, outputs = network(kind), {}
    with torch.no_grad():
        with layer_outputs(decoder_layers(model), outputs.__setitem__):
            model(TOKENS)
        states = model(TOKENS, output_hidden_states=True).hidden_states
    assert list(outputs) == [0, 1, 2]
    for layer in range(2):  # the last hidden state comes after the final norm
        assert torch.equal(outputs[layer], states[layer + 1])


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_truncated_network_gives_the_same_hidden_states(kind: str) -> None:
    model = network(kind)
    layers, outputs, truncated = decoder_layers(model), {}, {}
    with torch.no_grad():
        with layer_outputs(layers, outputs.__setitem__):
            logits = model(TOKENS).logits
        with layer_outputs(layers, truncated.__setitem__), truncate_layers(layers, 2):
            model(TOKENS, use_cache=False)
        assert torch.equal(model(TOKENS).logits, logits), "all layers are back"
    assert list(truncated) == [0, 1]
    assert all(torch.equal(truncated[layer], outputs[layer]) for layer in truncated)


def test_layers_are_the_decoders_or_the_only_list_of_their_number() -> None:
    llama = network("llama")
    llama.model.others = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
    assert decoder_layers(llama) is llama.model.layers
    gpt2 = network("gpt2")
    assert decoder_layers(gpt2) is gpt2.transformer.h
    gpt2.transformer.others = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
    with pytest.raises(ModelError, match="cannot tell its 3 decoder layers from 2 lists of modules"):
        decoder_layers(gpt2)
