"""Train one model in several processes (`accelerate launch`, `torchrun`) with PyTorch's `fully_shard`."""

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
    """This process among those that train one model."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> World:
        """Join the processes of the launcher (RANK, WORLD_SIZE, LOCAL_RANK); one process without it."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def wait_for_everyone(self) -> None:
        """Block until all processes are at this line."""
        if self.size > 1:
            dist.barrier()

    def broadcast(self, value: bool) -> bool:
        """The value of the main process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def reduce(self, values: Tensor) -> None:
        """Replace `values` by their sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values)

    def shard(self, model: PreTrainedModel) -> None:
        """Shard the parameters over all processes, on the process's GPU if there is one."""
        if self.size == 1:
            return
        mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (self.size,))
        for layer in decoder_layers(model):
            fully_shard(layer, mesh=mesh)
        # without resharding, parameters outside the layers would stay gathered between passes
        fully_shard(model, mesh=mesh, reshard_after_forward=True)


SINGLE_PROCESS = World()


def local_shard(tensor: Tensor) -> Tensor:
    """This process's shard of the tensor; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The gathered tensor. A collective operation: all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """All weights, on the CPU of the main process (empty elsewhere). A collective operation."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))  # type: ignore[return-value]
