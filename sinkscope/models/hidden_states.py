"""A network's decoder layers, their outputs, and forward passes that end after some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from sinkscope.errors import ModelError


def decoder_layers(network: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers in order: `get_decoder().layers`, or else the one list as long as the network.

    Raises:
        ModelError: no list of modules is as long as the network is deep, or more than one is.
    """
    depth = network.config.get_text_config().num_hidden_layers
    layers = getattr(network.get_decoder(), "layers", None)
    if isinstance(layers, nn.ModuleList) and len(layers) == depth:
        return layers
    lists = [each for each in network.modules() if isinstance(each, nn.ModuleList) and len(each) == depth]
    nested = {id(inner) for outer in lists for inner in outer.modules() if inner is not outer}
    outermost = [module for module in lists if id(module) not in nested]
    if len(outermost) != 1:
        raise ModelError(
            f"{type(network).__name__}: cannot tell its {depth} decoder layers from {len(outermost)} lists "
            "of modules, so its residual stream cannot be read; give another model"
        )
    return outermost[0]


@contextmanager
def layer_outputs(layers: Iterable[nn.Module], receive: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within the context `receive(layer, output)` is called with the hidden states after every layer."""
    with ExitStack() as handles:
        for number, module in enumerate(layers):

            def hook(module: nn.Module, inputs: Any, output: Any, *, layer: int = number) -> None:
                receive(layer, output[0] if isinstance(output, tuple) else output)

            handles.enter_context(module.register_forward_hook(hook))
        yield


@contextmanager
def truncate_layers(layers: nn.ModuleList, n_layers: int) -> Iterator[None]:
    """Within the context the network has its first `n_layers` decoder layers only, so it ends early.

    The list is shortened instead of raising an exception from a hook after the last wanted layer: under
    gradient checkpointing and FSDP a layer that does not return leaves their own hooks open.
    """
    modules = dict(layers._modules)
    for name in list(modules)[n_layers:]:
        del layers._modules[name]
    try:
        yield
    finally:
        layers._modules.clear()
        layers._modules.update(modules)
