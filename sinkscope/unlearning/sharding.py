"""Train one model in several processes (accelerate's `PartialState`) with PyTorch's `fully_shard`."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sinkscope.models.hidden_states import decoder_layers


def processes() -> PartialState:
    """This process among those that the launcher started; without one there is only this."""
    return PartialState(cpu=not torch.cuda.is_available())


def broadcast(value: bool) -> bool:
    """The value of the main process."""
    if processes().num_processes == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]


def shard(model: PreTrainedModel) -> None:
    """Shard the parameters over all processes, on the process's GPU if there is one.

    The model is marked as one that transformers sharded itself while loading, which `Trainer` leaves so.
    """
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (processes().num_processes,))
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh)
    # without resharding, parameters outside the layers would stay gathered between passes
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    model._is_distributed_loading_by_transformers = True


def local_shard(tensor: Tensor) -> Tensor:
    """This process's shard of the tensor; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The gathered tensor. A collective operation: all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """All weights, on the CPU of the main process (empty elsewhere). A collective operation."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))  # type: ignore[return-value]
