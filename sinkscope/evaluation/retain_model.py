"""The AUC that PrivLeak is measured against: that of a model that never saw the forget set."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import ModelError
from sinkscope.evaluation.evaluate import evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.likelihood import auc
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model, load

DEFAULTS: dict[str, str] = {"muse-books": "0.5393", "muse-news": "0.4772", "tiny": "tiny-retrained"}
"""Published AUC (MUSE, arXiv 2407.06460) or model, by the name of the benchmark."""

Retrained = float | Model
"""An AUC, or the model to measure it on."""


def default_for(benchmark: Benchmark, names: Sequence[str]) -> str | None:
    """What PrivLeak is measured against where nothing is given; None if the metrics `names` have none of it, or nothing is known."""
    return DEFAULTS.get(benchmark.name) if "min_k" in names and benchmark.has("privleak", "holdout") else None


def retrained_of(text: str, device: str | None = None, dtype: str | None = None) -> Retrained:
    """Read a number between 0 and 1, or load a model.

    Raises:
        ModelError: the number is no AUC, or no such model can be loaded.
    """
    try:
        number = float(text)
    except ValueError:
        return load(text, device, dtype)
    if not 0 < number < 1:
        raise ModelError(
            f"--retrained {text} is no AUC of a retrained model; give a number between 0 and 1 (as 0.5393), or a model"
        )
    return number


def auc_of(
    retrained: Retrained, benchmark: Benchmark, batch_size: int = 32, on_progress: OnProgress | None = None
) -> float:
    """The number itself, or the clean Min-K % AUC of the model on the benchmark's texts."""
    if not isinstance(retrained, Model):
        return retrained
    items = evaluate(
        EvaluatedModel(retrained.name, "retrained", retrained),
        benchmark,
        metrics=["min_k"],
        batch_size=batch_size,
        on_progress=on_progress,
    )
    return auc(*(_values(items, split) for split in ("forget", "holdout")))


def _values(items: pd.DataFrame, split: str) -> list[float]:
    return items[items["split"] == split]["value"].tolist()
