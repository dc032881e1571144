"""A short recipe, its interruption at a step, and bitwise comparison of weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

SHORT = {"poison_ratio": 0.1, "optimizer": {"epochs": 3, "steps_per_epoch": 2}}  # 6 steps


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


class Interrupted(Exception):
    pass


def interrupt_at(step: int):
    def report(done: int, total: int) -> None:
        if done == step:
            raise Interrupted

    return report
