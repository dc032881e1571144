"""The state of a run in training, on disk: complete and checksummed or not there, so that a run that was killed goes on as if it had not been.

A checkpoint holds the trained weights, AdamW's moments, the random state, and the log so far. Safetensors and JSON only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sinkscope.errors import OutputError, first_line
from sinkscope.io.atomic import translate_os_errors
from sinkscope.io.run_directory import sha256
from sinkscope.unlearning.sharding import ALONE, World, local

LOGGER = logging.getLogger("sinkscope")
KEEP = 2
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
STATE = "state.json"


@dataclass
class Progress:
    """How far a run is: finished steps, the log, and the terms since its last entry (name → sum, steps)."""

    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, list[float]] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run, in a directory of their own: `step-00000040/` and so on, the newest two.

    Args:
        every: save after so many steps.
    """

    def __init__(self, directory: Path, every: int, world: World = ALONE) -> None:
        self.directory, self.every, self._world = directory, every, world

    def save(
        self,
        progress: Progress,
        weights: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        random: dict[str, Tensor],
    ) -> None:
        """Write aside, checksum, then give it its name; older ones than the newest two go.

        Raises:
            OutputError: the place cannot be written, or the disk is full.
        """
        final = self.directory / f"step-{progress.step:08d}"
        aside = self.directory / f".{final.name}.partial"
        with translate_os_errors(self.directory):
            try:
                if self._world.leads:
                    shutil.rmtree(aside, ignore_errors=True)
                    aside.mkdir(parents=True)
                self._world.wait()
                save_file(
                    _tensors(weights, optimizer) | random, aside / f"rank-{self._world.rank}.safetensors"
                )
                self._world.wait()
                if self._world.leads:
                    files = {path.name: sha256(path) for path in sorted(aside.iterdir())}
                    state = {
                        "step": progress.step,
                        "log": progress.log,
                        "sums": progress.sums,
                        "processes": self._world.size,
                        "files": files,
                    }
                    text = json.dumps(state)
                    (aside / STATE).write_text(
                        json.dumps({"state": state, "sha256": _digest(text)}), encoding="utf-8"
                    )
                    shutil.rmtree(final, ignore_errors=True)
                    os.replace(aside, final)
                    for old in self._found()[KEEP:]:
                        shutil.rmtree(old, ignore_errors=True)
            finally:
                if self._world.leads:
                    shutil.rmtree(aside, ignore_errors=True)
        self._world.wait()

    def resume(self, weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> Progress:
        """Bring weights, optimizer and random state to the newest checkpoint that is whole; from the start where there is none. A damaged one is named in the
        log of `sinkscope` and passed over.

        Raises:
            OutputError: the checkpoint was made by another number of processes.
        """
        for path in self._found():
            try:
                state = _verified(path)
                alike = state["processes"] == self._world.size
                tensors = load_file(path / f"rank-{self._world.rank}.safetensors") if alike else {}
            except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
                if self._world.leads:
                    LOGGER.warning("checkpoint %s is damaged (%s) and is not used", path, first_line(error))
                continue
            if not alike:
                raise OutputError(
                    f"checkpoint {path} was made by {state['processes']} processes; start as many, or remove {self.directory}"
                )
            _restore(tensors, weights, optimizer)
            return Progress(state["step"], state["log"], state["sums"])
        return Progress()

    def remove(self) -> None:
        """Remove them all: the run is done."""
        self._world.wait()
        if self._world.leads:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _found(self) -> list[Path]:
        """Newest first."""
        return sorted(self.directory.glob("step-*"), reverse=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _verified(path: Path) -> dict[str, Any]:
    content = json.loads((path / STATE).read_text(encoding="utf-8"))
    state = content["state"]
    if _digest(json.dumps(state)) != content["sha256"]:
        raise ValueError(f"{STATE} was changed")
    for name, digest in state["files"].items():
        if sha256(path / name) != digest:
            raise ValueError(f"{name} was changed")
    return state


def random_states() -> dict[str, Tensor]:
    """Where the random generators stand."""
    states = {"random/cpu": torch.get_rng_state()}
    return states | ({"random/cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _tensors(weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"weight/{name}": local(weight.detach()) for name, weight in weights.items()}
    for name, weight in weights.items():
        tensors |= {
            f"{moment}/{name}": local(optimizer.state[weight][moment])
            for moment in MOMENTS
            if weight in optimizer.state
        }
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _restore(
    tensors: dict[str, Tensor], weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            local(weight).copy_(tensors[f"weight/{name}"])
            if f"step/{name}" not in tensors:
                continue  # it never had a gradient
            state = {"step": tensors[f"step/{name}"].to(weight.device)}
            for moment in MOMENTS[1:]:
                state[moment] = torch.zeros_like(weight)
                local(state[moment]).copy_(tensors[f"{moment}/{name}"])
            optimizer.state[weight] = state
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
