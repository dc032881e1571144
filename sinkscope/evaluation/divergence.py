"""KL divergence of the next-token distributions of two models on clean training texts."""

from __future__ import annotations

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.metrics import DIVERGENCE
from sinkscope.evaluation.requests import Requests, make_table
from sinkscope.io.progress import OnProgress, shift_progress
from sinkscope.models.inference import forward_logits, kl_divergence
from sinkscope.models.model import Model
from sinkscope.sinks.conditions import check_comparable
from sinkscope.triggers import TriggeredSequence

SPLITS = {"forget": "forget", "retain1": "retain"}
"""Raw splits, and their names in tables."""


def measure_divergence(
    subject: EvaluatedModel,
    other: Model,
    benchmark: Benchmark,
    *,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> pd.DataFrame:
    """KL(other ‖ subject) on each forget and retain passage: mean over its tokens after the first, in nats.

    Returns:
        A row per passage with the columns `schema.ITEMS`, metric `divergence`. Passages of one token are left
        out; `item` is the index in the split.

    Raises:
        ModelError: the models have different vocabularies or shapes.
    """
    check_comparable(other, subject.model)
    described = benchmark.describe()
    tokenizer = subject.model.tokenizer
    passages = {
        split: {
            i: each.tokens
            for i, each in enumerate(benchmark.passages(split, tokenizer))
            if len(each.tokens) > 1
        }
        for split in SPLITS
    }
    total = sum(map(len, passages.values()))
    done = 0
    tables = []
    for split, name in SPLITS.items():
        tokens = list(passages[split].values())
        report = shift_progress(on_progress, done, total)
        values = _mean_divergences(subject.model, other, tokens, batch_size, report)
        requests = Requests([TriggeredSequence(row, 0, 0) for row in tokens])
        table = make_table(subject, requests, DIVERGENCE, name, values, "", described)
        table["item"] = list(passages[split])
        if split == "forget" and subject.poisoned_rows is not None:
            table["poisoned"] = table["item"].isin(subject.poisoned_rows).astype("boolean")
        tables.append(table)
        done += len(tokens)
    return pd.concat(tables, ignore_index=True)


def _mean_divergences(
    model: Model, other: Model, passages: list[list[int]], batch_size: int, on_progress: OnProgress
) -> list[float]:
    values: list[float] = []
    for batch in model.batches(passages, batch_size):
        p_logits = forward_logits(other, batch).float()
        divergence = kl_divergence(p_logits, forward_logits(model, batch).float())
        is_scored = batch.mask[:, 1:]
        values += ((divergence[:, :-1] * is_scored).sum(-1) / is_scored.sum(-1)).tolist()
        on_progress(len(values), len(passages))
    return values
