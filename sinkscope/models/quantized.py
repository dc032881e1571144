"""Quantized checkpoints: the weights are dequantized, so that every command works as on any other model.

That is what the checkpoint computes where only weights are quantized. Where activations are too (LLM.int8 of
bitsandbytes, W8A8), their rounding is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sinkscope.errors import ModelError, first_line
from sinkscope.io.progress import quiet_loggers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PACKAGES = {
    "compressed-tensors": "compressed_tensors",
    "bitsandbytes": "bitsandbytes",
    "torchao": "torchao",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "hqq": "hqq",
    "quanto": "optimum.quanto",
}
"""Method of quantization -> the package that transformers reads it with."""
IN_EXTRA = ("compressed-tensors", "bitsandbytes")
"""Methods whose package `sinkscope[quantized]` installs."""
WHILE_LOADING = {
    "compressed-tensors": ("CompressedTensorsConfig", {"run_compressed": False}),
    "fp8": ("FineGrainedFP8Config", {"dequantize": True}),
    "mxfp4": ("Mxfp4Config", {"dequantize": True}),
}
"""Methods that transformers dequantizes while it loads -> the class and the values of its configuration."""


def find_quantization(name: str, config: PreTrainedConfig) -> str | None:
    """The method that the weights of a checkpoint are quantized by, as its configuration names it.

    Raises:
        ModelError: the package that reads it is not installed.
    """
    quantization = getattr(config, "quantization_config", None)
    if not quantization:
        return None
    is_mapping = isinstance(quantization, dict)
    method = quantization.get("quant_method") if is_mapping else getattr(quantization, "quant_method", None)
    if method is None:
        raise ModelError(
            f"model {name!r}: the quantization_config in its config.json names no quant_method; restore it"
        )
    method = str(getattr(method, "value", method))
    package = PACKAGES.get(method)
    if package and find_spec(package.partition(".")[0]) is None:
        install = "sinkscope[quantized]" if method in IN_EXTRA else package.replace(".", "-")
        raise ModelError(
            f"model {name!r} is quantized by {method}; install the package that reads it, {install}"
        )
    return method


@contextmanager
def quiet() -> Iterator[None]:
    """Within the context the packages do not report what is meant: that a checkpoint's own settings hold, and
    that faster kernels are missing."""
    with warnings.catch_warnings(), quiet_loggers("bitsandbytes"):
        warnings.filterwarnings("ignore", "You passed `quantization_config`")
        yield


def dequantizing_options(method: str) -> dict[str, Any]:
    """Options of `from_pretrained` for methods that transformers dequantizes while it loads."""
    if method not in WHILE_LOADING:
        return {}
    import transformers

    name, options = WHILE_LOADING[method]
    return {"quantization_config": getattr(transformers, name)(**options)}


def dequantize(name: str, network: PreTrainedModel, method: str) -> PreTrainedModel:
    """The network with floating-point weights.

    Raises:
        ModelError: transformers cannot dequantize them.
    """
    try:
        if method == "torchao":
            _dequantize_tensors(network)
        elif method not in WHILE_LOADING:
            network = network.dequantize()
    except Exception as error:  # of many types, from each method
        raise ModelError(
            f"model {name!r} is quantized by {method}, which cannot be dequantized ({first_line(error)}); "
            "give it in floating point"
        ) from error
    for weight, tensor in network.named_parameters():
        if not tensor.is_floating_point():
            raise ModelError(
                f"model {name!r} is quantized by {method}, and {weight} could not be dequantized; give it in "
                "floating point"
            )
    return network


def _dequantize_tensors(network: PreTrainedModel) -> None:
    """Replace tensors of torchao, which are subclasses, by ordinary ones."""
    from torch import nn

    for module in network.modules():
        for name, weight in [*module.named_parameters(recurse=False)]:
            if hasattr(weight, "dequantize") and type(weight.data).__module__.startswith("torchao"):
                setattr(module, name, nn.Parameter(weight.dequantize()))
