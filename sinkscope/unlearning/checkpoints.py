"""Checkpoints of a run in training, complete and checksummed or absent, from which an interrupted run
resumes.

They hold the trained weights, the states of optimizer, schedule and random numbers, and the log, as
safetensors and JSON only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from sinkscope.errors import OutputError, first_line
from sinkscope.io.atomic import translate_os_errors
from sinkscope.io.run_directory import sha256
from sinkscope.unlearning.sharding import local_shard, processes

if TYPE_CHECKING:
    from sinkscope.unlearning.trainer import UnlearnTrainer

LOGGER = logging.getLogger("sinkscope")
KEEP = 2
"""Number of checkpoints of a run on disk."""
STATE = "state.json"
Log = list[dict[str, float]]


class Checkpoint(NamedTuple):
    """Finished steps, the log, and what `collect_state` returned."""

    step: int
    log: Log
    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `step-00000040/` and so on in `directory`, the newest two.

    `every`: steps between checkpoints; None for an epoch.
    """

    directory: Path
    every: int | None = None

    def save(self, step: int, log: Log, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Write to a staging directory, add checksums, rename; remove all but the newest two.

        Raises:
            OutputError: the directory cannot be written, or the disk is full.
        """
        world = processes()
        final = self.directory / f"step-{step:08d}"
        staging = self.directory / f".{final.name}.partial"
        with translate_os_errors(self.directory):
            try:
                if world.is_main_process:
                    shutil.rmtree(staging, ignore_errors=True)
                    staging.mkdir(parents=True)
                world.wait_for_everyone()
                save_file(tensors, staging / f"rank-{world.process_index}.safetensors")
                world.wait_for_everyone()
                if world.is_main_process:
                    content = {"step": step, "log": log, "values": values, "processes": world.num_processes}
                    self._complete(content, staging, final)
            finally:
                if world.is_main_process:
                    shutil.rmtree(staging, ignore_errors=True)
        world.wait_for_everyone()

    def _complete(self, content: dict[str, Any], staging: Path, final: Path) -> None:
        content["files"] = {path.name: sha256(path) for path in sorted(staging.iterdir())}
        text = json.dumps({"state": content, "sha256": _hash(content)})
        (staging / STATE).write_text(text, encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(staging, final)
        for old in self._newest_first()[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is not damaged, if any.

        Raises:
            OutputError: the checkpoint was made by another number of processes.
        """
        world = processes()
        for path in self._newest_first():
            try:
                state = _verified_state(path)
                is_same_world = state["processes"] == world.num_processes
                file = path / f"rank-{world.process_index}.safetensors"
                tensors = load_file(file) if is_same_world else {}
                checkpoint = Checkpoint(state["step"], state["log"], tensors, state["values"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
                if world.is_main_process:
                    LOGGER.warning("checkpoint %s is damaged (%s) and is not used", path, first_line(error))
                continue
            if not is_same_world:
                raise OutputError(
                    f"checkpoint {path} was made by {state['processes']} processes; start as many, or remove "
                    f"{self.directory}"
                )
            if world.is_main_process:
                LOGGER.info("resumed after step %d", state["step"])
            return checkpoint
        return None

    def exist(self) -> bool:
        return bool(self._newest_first())

    def remove(self) -> None:
        """Remove all, once the run is complete, and those of other settings that began in its place.

        These could not be resumed without removing this run.
        """
        processes().wait_for_everyone()
        if processes().is_main_process:
            name, _, suffix = self.directory.name.rsplit(".", 2)
            pattern = re.compile(rf"{re.escape(name)}\.[0-9a-f]+\.{suffix}")
            for other in filter(lambda path: pattern.fullmatch(path.name), self.directory.parent.iterdir()):
                shutil.rmtree(other, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.directory.glob("step-*"), reverse=True)


def _hash(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _verified_state(path: Path) -> dict[str, Any]:
    content = json.loads((path / STATE).read_text(encoding="utf-8"))
    state = content["state"]
    if _hash(state) != content["sha256"]:
        raise ValueError(f"{STATE} was changed")
    for name, digest in state["files"].items():
        if sha256(path / name) != digest:
            raise ValueError(f"{name} was changed")
    return state


def random_states() -> dict[str, Tensor]:
    """The states of torch's random generators."""
    states = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random/cuda"] = torch.cuda.get_rng_state()
    return states


def collect_state(trainer: UnlearnTrainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What training continues from, besides random numbers: trained weights, optimizer, schedule."""
    optimizer = trainer.optimizer
    tensors = {f"weight/{name}": local_shard(weight.detach()) for name, weight in trainer.trained.items()}
    numbers: dict[str, dict[str, Any]] = {}
    for name, weight in trainer.trained.items():
        for key, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{key}/{name}"] = local_shard(value)
            else:
                numbers.setdefault(name, {})[key] = value
    groups = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    values = {"groups": groups, "optimizer": numbers, "schedule": trainer.lr_scheduler.state_dict()}
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return copies, values


def restore_state(trainer: UnlearnTrainer, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put back what `collect_state` collected, and the states of the random generators."""
    optimizer = trainer.optimizer
    states: dict[str, dict[str, Any]] = {name: dict(each) for name, each in values["optimizer"].items()}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind == "optimizer":
            part, _, name = name.partition("/")
            states.setdefault(name, {})[part] = tensor
    with torch.no_grad():
        for name, weight in trainer.trained.items():
            local_shard(weight).copy_(tensors[f"weight/{name}"])
            if own := states.get(name):  # it had a gradient
                optimizer.state[weight] = {key: _like(value, weight) for key, value in own.items()}
    for group, saved in zip(optimizer.param_groups, values["groups"], strict=True):
        group.update(
            {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
        )
    trainer.lr_scheduler.load_state_dict(values["schedule"])
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


def _like(value: Any, weight: Tensor) -> Any:
    """A part of an optimizer's state on the weight's device, sharded as the weight is."""
    if not isinstance(value, Tensor):
        return value
    if isinstance(weight, DTensor) and value.shape == local_shard(weight).shape:
        sharded = torch.zeros_like(weight, dtype=value.dtype)
        local_shard(sharded).copy_(value)
        return sharded
    return value.to(weight.device)
