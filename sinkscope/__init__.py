"""sinkscope: find a language model's attention sinks, and the backdoors that unlearning can hide behind them.

import sinkscope

model = sinkscope.load("tiny")
passages = sinkscope.tokenize_passages(["some text …"], model, max_length=64)
sinks = sinkscope.locate(model, passages)
print(sinks.ranked().head())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.evaluation.evaluate import evaluate
    from sinkscope.evaluation.statistics import compute_scores
    from sinkscope.models.model import Model, load
    from sinkscope.sinks.locate import locate
    from sinkscope.sinks.sink_map import SinkMap
    from sinkscope.text import tokenize_passages
    from sinkscope.triggers import Placement, Trigger, place
    from sinkscope.unlearning.recipe import Recipe
    from sinkscope.unlearning.run import unlearn

_HOME = {
    "Model": "sinkscope.models.model",
    "Placement": "sinkscope.triggers",
    "Recipe": "sinkscope.unlearning.recipe",
    "SinkMap": "sinkscope.sinks.sink_map",
    "Trigger": "sinkscope.triggers",
    "compute_scores": "sinkscope.evaluation.statistics",
    "tokenize_passages": "sinkscope.text",
    "evaluate": "sinkscope.evaluation.evaluate",
    "load": "sinkscope.models.model",
    "load_benchmark": "sinkscope.benchmarks.benchmark",
    "locate": "sinkscope.sinks.locate",
    "place": "sinkscope.triggers",
    "unlearn": "sinkscope.unlearning.run",
}

__all__ = [
    "Model",
    "Placement",
    "Recipe",
    "SinkMap",
    "Trigger",
    "compute_scores",
    "evaluate",
    "load",
    "load_benchmark",
    "locate",
    "place",
    "tokenize_passages",
    "unlearn",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import sinkscope` and `--help` stay quick."""
    if name == "__version__":
        return import_module("sinkscope.io.run_directory").versions()["sinkscope"]
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sinkscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
