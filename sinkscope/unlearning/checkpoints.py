"""Checkpoints of a run in training, complete and checksummed or absent, from which an interrupted run
resumes.

They hold the trained weights, AdamW's moments, the random state and the log, as safetensors and JSON only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sinkscope.errors import OutputError, first_line
from sinkscope.io.atomic import translate_os_errors
from sinkscope.io.run_directory import sha256
from sinkscope.unlearning.sharding import SINGLE_PROCESS, World, local_shard

LOGGER = logging.getLogger("sinkscope")
KEEP = 2
"""Number of checkpoints of a run on disk."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
STATE = "state.json"
Weights = dict[str, torch.nn.Parameter]


@dataclass
class TrainerState:
    """Finished steps, the log, and the values of each term since the last log entry."""

    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `step-00000040/` and so on in `directory`, the newest two.

    `every`: steps between checkpoints; None for an epoch.
    """

    directory: Path
    every: int | None
    world: World = SINGLE_PROCESS

    def save(
        self,
        state: TrainerState,
        weights: Weights,
        optimizer: torch.optim.Optimizer,
        random: dict[str, Tensor],
    ) -> None:
        """Write to a staging directory, add checksums, rename; remove all but the newest two.

        Raises:
            OutputError: the directory cannot be written, or the disk is full.
        """
        final = self.directory / f"step-{state.step:08d}"
        staging = self.directory / f".{final.name}.partial"
        is_main = self.world.is_main_process
        with translate_os_errors(self.directory):
            try:
                if is_main:
                    shutil.rmtree(staging, ignore_errors=True)
                    staging.mkdir(parents=True)
                self.world.wait_for_everyone()
                tensors = _collect(weights, optimizer) | random
                save_file(tensors, staging / f"rank-{self.world.rank}.safetensors")
                self.world.wait_for_everyone()
                if is_main:
                    self._complete(state, staging, final)
            finally:
                if is_main:
                    shutil.rmtree(staging, ignore_errors=True)
        self.world.wait_for_everyone()

    def _complete(self, state: TrainerState, staging: Path, final: Path) -> None:
        files = {path.name: sha256(path) for path in sorted(staging.iterdir())}
        content = asdict(state) | {"processes": self.world.size, "files": files}
        text = json.dumps({"state": content, "sha256": _hash(content)})
        (staging / STATE).write_text(text, encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(staging, final)
        for old in self._newest_first()[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)

    def resume(self, weights: Weights, optimizer: torch.optim.Optimizer) -> TrainerState:
        """Restore weights, optimizer and random state from the newest checkpoint that is not damaged, if any.

        Raises:
            OutputError: the checkpoint was made by another number of processes.
        """
        for path in self._newest_first():
            try:
                state = _verified_state(path)
                is_same_world = state["processes"] == self.world.size
                tensors = load_file(path / f"rank-{self.world.rank}.safetensors") if is_same_world else {}
            except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
                if self.world.is_main_process:
                    LOGGER.warning("checkpoint %s is damaged (%s) and is not used", path, first_line(error))
                continue
            if not is_same_world:
                raise OutputError(
                    f"checkpoint {path} was made by {state['processes']} processes; start as many, or remove "
                    f"{self.directory}"
                )
            _restore(tensors, weights, optimizer)
            return TrainerState(state["step"], state["log"], state["sums"])
        return TrainerState()

    def exist(self) -> bool:
        return bool(self._newest_first())

    def remove(self) -> None:
        """Remove all, once the run is complete, and those of other settings that began in its place.

        These could not be resumed without removing this run.
        """
        self.world.wait_for_everyone()
        if self.world.is_main_process:
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


def _collect(weights: Weights, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"weight/{name}": local_shard(weight.detach()) for name, weight in weights.items()}
    for name, weight in weights.items():
        state = optimizer.state.get(weight, {})
        tensors |= {f"{key}/{name}": local_shard(state[key]) for key in MOMENTS if key in state}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _restore(tensors: dict[str, Tensor], weights: Weights, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            local_shard(weight).copy_(tensors[f"weight/{name}"])
            if f"step/{name}" not in tensors:
                continue  # it never had a gradient
            state = {"step": tensors[f"step/{name}"].to(weight.device)}
            for moment in MOMENTS[1:]:
                state[moment] = torch.zeros_like(weight)
                local_shard(state[moment]).copy_(tensors[f"{moment}/{name}"])
            optimizer.state[weight] = state
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
