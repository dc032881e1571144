"""Tensors and decisions that processes share; they are those of accelerate's `PartialState`."""

from __future__ import annotations

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.distributed.tensor import DTensor


def broadcast(value: bool) -> bool:
    """The value of the main process."""
    if PartialState().num_processes == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]


def local_shard(tensor: Tensor) -> Tensor:
    """This process's shard of the tensor; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The gathered tensor. A collective operation: all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
