"""How far apart two models are on clean text: the Kullback-Leibler divergence of their next-token distributions."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.evaluation.evaluate import frame
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.metrics import DIVERGENCE
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.triggers import TriggeredSequence

SPLITS = {"forget": "forget", "retain1": "retain"}
"""Training texts that are read, and what the split is called in tables."""


def divergences(
    subject: EvaluatedModel,
    other: Model,
    benchmark: Benchmark,
    *,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> pd.DataFrame:
    """KL(other ‖ subject) of each training passage to forget and to retain: mean over its tokens behind the first, in nats. Columns as of
    `evaluate.evaluate`, metric `divergence`.

    Raises:
        ModelError: the two have different vocabularies or shapes.
    """
    from sinkscope.sinks.compare import check_comparable

    check_comparable(other, subject.model)
    every = {
        split: [each.tokens for each in benchmark.passages(split, subject.model.tokenizer)]
        for split in SPLITS
    }
    passages = {split: [tokens for tokens in each if len(tokens) > 1] for split, each in every.items()}
    frames, total, done = [], sum(map(len, passages.values())), 0
    rows = set(subject.poisoned_rows) if subject.poisoned_rows is not None else None
    for split, name in SPLITS.items():
        values: list[float] = []
        for batch in subject.model.batches(passages[split], batch_size):
            inputs = {
                "input_ids": batch.ids,
                "attention_mask": batch.mask.long(),
                "position_ids": batch.position_ids,
                "use_cache": False,
            }
            with torch.no_grad():
                apart = kl(other.hf(**inputs).logits.float(), subject.model.hf(**inputs).logits.float())
            behind = batch.mask[:, 1:]
            values += ((apart[:, :-1] * behind).sum(-1) / behind.sum(-1)).tolist()
            done += len(batch.spans)
            if on_progress:
                on_progress(done, total)
        read = [i for i, tokens in enumerate(every[split]) if len(tokens) > 1]
        known = [i in rows for i in read] if rows is not None and split == "forget" else [None] * len(values)
        clean = [TriggeredSequence(tokens, 0, 0) for tokens in passages[split]]
        rows_of = frame(
            subject,
            DIVERGENCE,
            name,
            None,
            None,
            clean,
            values,
            [""] * len(values),
            pd.array(known, dtype="boolean"),
        )
        frames.append(rows_of.assign(item=read))
    return pd.concat(frames, ignore_index=True)


def kl(
    first: Float[Tensor, "*batch vocab"], second: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """Σ_v p log(p / q) of two distributions given as logits, in nats."""
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
