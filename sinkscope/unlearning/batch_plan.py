"""Which passages every step takes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sinkscope.unlearning.recipe import OptimizerConfig

SPLITS = ("forget", "retain", "poisoned")


@dataclass(frozen=True)
class BatchPlan:
    """Row numbers by split: an epoch walks through the forget set once (or through so many batches of it); the other splits go along in seeded
    order, each of their passages as often as any other (± 1) over the whole run."""

    rows: dict[str, list[int]]
    batch_size: int
    epochs: int

    @classmethod
    def of(cls, sizes: Mapping[str, int], optimizer: OptimizerConfig, seed: int) -> BatchPlan:
        epoch = (
            sizes["forget"]
            if optimizer.batches is None
            else min(sizes["forget"], optimizer.batches * optimizer.batch_size)
        )
        rows = {
            split: _cycle(size, epoch * optimizer.epochs, f"{split} {seed}")
            for split, size in sizes.items()
            if size
        }
        return cls(rows, optimizer.batch_size, optimizer.epochs)

    def __len__(self) -> int:
        return -(-len(self.rows["forget"]) // self.batch_size)

    def __getitem__(self, step: int) -> dict[str, list[int]]:
        first = step * self.batch_size
        return {split: rows[first : first + self.batch_size] for split, rows in self.rows.items()}

    def epoch(self, step: int) -> float:
        """How many epochs lie behind after `step` steps."""
        return min(step * self.batch_size / len(self.rows["forget"]), 1.0) * self.epochs


def _cycle(size: int, total: int, seed: str) -> list[int]:
    rng = random.Random(seed)
    rows: list[int] = []
    while len(rows) < total:
        rows += rng.sample(range(size), size)
    return rows[:total]


def split_into_microbatches(rows: Sequence[int], count: int) -> list[list[int]]:
    """`rows` in `count` parts of nearly equal size, in order; the last ones are empty where there are fewer rows than parts."""
    size = -(-len(rows) // count)
    return [list(rows[i * size : (i + 1) * size]) for i in range(count)]
