"""Several processes, each with a shard of the model: PyTorch's `fully_shard`, whoever started them (accelerate launch, torchrun)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sinkscope.models.hidden_states import decoder_layers


@dataclass(frozen=True)
class World:
    """This process among those that train one model together."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> World:
        """Meet the others, of whom the launcher tells in the environment (RANK, WORLD_SIZE, LOCAL_RANK); alone without one."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()

    def agreed(self, value: bool) -> bool:
        """What the leading process says."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told)
        return told[0]

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def shard(self, model: PreTrainedModel) -> None:
        """Split every layer's parameters, and those outside the layers, over all processes, on this process's GPU if there is one."""
        if self.size == 1:
            return
        mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (self.size,))
        for layer in decoder_layers(model):
            fully_shard(layer, mesh=mesh)
        fully_shard(
            model, mesh=mesh, reshard_after_forward=True
        )  # or parameters outside the layers would stay whole between passes


ALONE = World()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; the tensor itself where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor. All processes have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The whole model's weights, on the CPU of the leading process (empty elsewhere). All processes have to ask for it."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))  # type: ignore[return-value]
