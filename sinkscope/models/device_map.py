"""Models larger than one device: modules on several devices, and weights on disk that are read when needed.

accelerate moves weights and inputs; weights on disk are read from the checkpoint's own safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sinkscope.config import read_yaml
from sinkscope.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""Of accelerate: it distributes the modules itself."""
ON_DEVICES = "on several devices or on disk, where TransformerLens does not run it"
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT])(I?)B", re.IGNORECASE)


@dataclass(frozen=True)
class DeviceMap:
    """Where the modules of a model go.

    Args:
        placement: one of `STRATEGIES`, or a device (`cpu`, `disk`, `0` or `cuda:0`) for each module.
        max_memory: how much of each device may be used, as `{"cpu": "20GB", 0: "40GB"}`; what does not fit
            stays on disk.
        offload: a directory for weights on disk that the checkpoint holds in another form; by default a
            temporary one.

    Raises:
        ModelError: a strategy or device is unknown, or a size is none.
    """

    placement: str | Mapping[str, str | int] = "auto"
    max_memory: Mapping[str | int, str] | None = None
    offload: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.placement, str):
            if self.placement not in STRATEGIES:
                raise ModelError(
                    f"`device_map` {self.placement!r} is unknown; use {', '.join(STRATEGIES)}, or a file "
                    "with a device for each module"
                )
        else:
            for module, device in self.placement.items():
                _check_device(f"`device_map` gives {module!r} to", device, ("cpu", "disk"))
        for device, size in (self.max_memory or {}).items():
            _check_device("`max_memory` names", device, ("cpu",))
            _count_bytes(size)
        if self.max_memory and not isinstance(self.placement, str):
            raise ModelError("`max_memory` has no effect on a map of modules; leave it out, or use auto")

    @classmethod
    def parse(
        cls, placement: str | None, max_memory: str | None = None, offload: Path | None = None
    ) -> DeviceMap | None:
        """From the values of the options: a strategy or a file (YAML or JSON), and `cpu=20GB,0=40GB`."""
        if placement is None:
            for name, value in (("max_memory", max_memory), ("offload", offload)):
                if value is not None:
                    raise ModelError(f"`{name}` goes with `device_map`; give that too, as auto")
            return None
        mapping: Any = placement
        if placement not in STRATEGIES and Path(placement).suffix in (".json", ".yaml", ".yml"):
            mapping = read_yaml(Path(placement), "device map", ModelError)
            if not isinstance(mapping, dict) or not all(
                isinstance(each, str | int) for each in mapping.values()
            ):
                raise ModelError(
                    f"device map {placement} is not a mapping of modules to devices; see accelerate's"
                )
        sizes = None
        if max_memory is not None:
            pairs = [pair.partition("=") for pair in max_memory.split(",")]
            sizes = {_as_device(name.strip()): size.strip() for name, _, size in pairs}
        return cls(mapping, sizes, offload)

    def loading_options(self) -> tuple[dict[str, Any], TemporaryDirectory[str] | None]:
        """Options of `from_pretrained`, and the temporary directory that has to outlive the model."""
        placement = self.placement
        if not isinstance(placement, str):
            placement = {module: _as_device(str(device)) for module, device in placement.items()}
        temporary = None
        folder = str(self.offload)
        if self.offload is None:
            temporary = TemporaryDirectory(prefix="sinkscope-offload-")
            folder = temporary.name
        options: dict[str, Any] = {"device_map": placement, "offload_folder": folder}
        if self.max_memory:
            from accelerate.utils import get_max_memory

            limits = {device: _count_bytes(size) for device, size in self.max_memory.items()}
            options["max_memory"] = get_max_memory() | limits  # of the other devices what is free
        return options, temporary


def _count_bytes(size: str) -> int:
    match = SIZE.fullmatch(size.strip())
    if match is None:
        raise ModelError(f"`max_memory` {size!r} is not a size; write it like 20GB")
    power = "KMGT".index(match[2].upper()) + 1
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def _as_device(text: str) -> str | int:
    """`0` and `cuda:0` as accelerate's number, other names as they are."""
    match = re.fullmatch(r"(?:cuda:)?([0-9]{1,4})", text)
    return int(match[1]) if match else text


def _check_device(problem: str, device: str | int, names: tuple[str, ...]) -> None:
    number = _as_device(str(device))
    n_gpus = torch.cuda.device_count()
    if number in names or (isinstance(number, int) and number < n_gpus):
        return
    present = ", ".join([*names, *map(str, range(n_gpus))])
    raise ModelError(f"{problem} device {str(device)[:40]!r}, which is not there; use {present}")


def is_dispatched(network: PreTrainedModel) -> bool:
    """Whether the modules are on several devices, or weights on disk."""
    return (
        any(tensor.is_meta for tensor in network.parameters())
        or len(set(getattr(network, "hf_device_map", {}).values())) > 1
    )


def execution_device(network: PreTrainedModel) -> torch.device:
    """The device of inputs: that of the embedding, also while its weights are on disk."""
    for module in (network.get_input_embeddings(), network):
        for each in _hooks(module):
            if (device := getattr(each, "execution_device", None)) is not None:
                return torch.device(device)
    return network.device


def _hooks(module: nn.Module) -> list[Any]:
    """The hooks of accelerate on a module."""
    hook = getattr(module, "_hf_hook", None)
    return list(getattr(hook, "hooks", [hook]))


def iterate_weights(network: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the state dict, sorted; those on disk are read one after the other."""
    on_disk = {}
    for prefix, module in network.named_modules():
        for each in _hooks(module):
            if (weights := getattr(each, "weights_map", None)) is not None:
                for name, _ in (
                    *module.named_parameters(recurse=False),
                    *module.named_buffers(recurse=False),
                ):
                    on_disk[f"{prefix}.{name}" if prefix else name] = (weights, name)
    for name, tensor in sorted(network.state_dict().items()):
        if tensor.is_meta:
            weights, local = on_disk[name]
            tensor = weights[local].to(tensor.dtype)
        yield name, tensor
