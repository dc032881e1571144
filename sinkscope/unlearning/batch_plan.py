"""The deterministic order of batches: which rows of every split each step takes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sinkscope.unlearning.recipe import OptimizerConfig

SPLITS = ("forget", "retain", "poisoned")


@dataclass(frozen=True)
class BatchPlan:
    """Row numbers of the whole run, by split.

    An epoch is one pass over the forget set, or `steps_per_epoch` batches of it. The other splits have as
    many rows, in seeded order; over the run each of their passages occurs as often as any other (± 1).
    """

    rows: dict[str, list[int]]
    batch_size: int
    epochs: int

    @classmethod
    def of(cls, sizes: Mapping[str, int], optimizer: OptimizerConfig, seed: int) -> BatchPlan:
        """The plan for splits of these sizes; empty splits are left out."""
        rows_per_epoch = sizes["forget"]
        if optimizer.steps_per_epoch is not None:
            rows_per_epoch = min(rows_per_epoch, optimizer.steps_per_epoch * optimizer.batch_size)
        total = rows_per_epoch * optimizer.epochs
        rows = {
            split: _shuffled_rows(size, total, f"{split} {seed}") for split, size in sizes.items() if size
        }
        return cls(rows, optimizer.batch_size, optimizer.epochs)

    def __len__(self) -> int:
        return -(-len(self.rows["forget"]) // self.batch_size)

    def __getitem__(self, step: int) -> dict[str, list[int]]:
        start = step * self.batch_size
        return {split: rows[start : start + self.batch_size] for split, rows in self.rows.items()}

    def epoch(self, step: int) -> float:
        """The number of epochs that are finished after `step` steps."""
        return min(step * self.batch_size / len(self.rows["forget"]), 1.0) * self.epochs


def _shuffled_rows(size: int, total: int, seed: str) -> list[int]:
    rng = random.Random(seed)
    rows: list[int] = []
    while len(rows) < total:
        rows += rng.sample(range(size), size)
    return rows[:total]


def split_into_microbatches(rows: Sequence[int], count: int) -> list[list[int]]:
    """`rows` in `count` microbatches of nearly equal size, in order; the last are empty if there are fewer
    rows."""
    size = -(-len(rows) // count)
    return [list(rows[i * size : (i + 1) * size]) for i in range(count)]
