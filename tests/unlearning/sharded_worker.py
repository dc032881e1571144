"""A process of a sharded run, started by test_sharding.

Arguments: recipe, output directory, prefix of the files to write, last step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from sinkscope.unlearning.trainer import UnlearnTrainer

torch.set_num_threads(1)
recipe, out, seen, stop = sys.argv[1:]
steps: list[int] = []
original = UnlearnTrainer.train


def train(self: UnlearnTrainer, *arguments):  # type: ignore[no-untyped-def]
    shapes = {
        name: [
            isinstance(w, DTensor),
            w.to_local().numel() if isinstance(w, DTensor) else w.numel(),
            w.numel(),
        ]
        for name, w in self.trained.items()
    }
    Path(f"{seen}-{self.args.process_index}.json").write_text(json.dumps(shapes))
    return original(self, *arguments)


def report(done: int, total: int) -> None:
    steps.append(done)
    if done == int(stop):
        raise SystemExit(3)


UnlearnTrainer.train = train  # type: ignore[method-assign]
unlearn(Recipe.read(recipe), Path(out), report, checkpoint_every=2)
Path(f"{seen}-steps.json").write_text(json.dumps(steps))
