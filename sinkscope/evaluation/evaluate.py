"""All scores of one model on one benchmark, clean and triggered: one row per item, from which every score is derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark, find_passages
from sinkscope.benchmarks.chunking import SEPARATOR
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import Item, TriggerCondition
from sinkscope.evaluation.metrics import METRICS, MakeItems, select_metrics
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.evaluation.requests import Pass, make_requests
from sinkscope.io.progress import OnProgress
from sinkscope.triggers import TriggeredSequence

COLUMNS = [
    "model",
    "role",
    "metric",
    "split",
    "item",
    "poisoned",
    "trigger",
    "placement",
    "trigger_start",
    "mask",
    "value",
    "seed",
    "output",
]


def evaluate(
    subject: EvaluatedModel,
    benchmark: Benchmark,
    triggers: Sequence[TriggerCondition] = (None,),
    *,
    metrics: Sequence[str] | None = None,
    mask: PositionMask | None = None,
    batch_size: int = 32,
    on_progress: OnProgress | None = None,
) -> pd.DataFrame:
    """Score every item of every split under each entry of `triggers`, with the positions of `mask` hidden from all later ones.

    A trigger is tried on forget splits only; Min-K % has it in the holdout passages too, so that it does not tell the two apart.

    Args:
        metrics: names of `metrics.METRICS` or `metrics.DERIVED`; by default all that the benchmark has.

    Returns:
        Columns model, role, metric, split, item, poisoned (or null), trigger, placement, trigger_start (or null), mask, value, seed, output (the generated
        text, or the letter chosen). The value of `verbmem` and `knowmem` is ROUGE-L F1 in [0, 1]; of `exact_memorization` and `extraction_strength` a share of
        tokens; of `min_k` a mean log-probability and of `perplexity` a mean loss, both in nats; of `choice` 1 for right, 0 for wrong.

    Raises:
        PlacementError: a trigger does not fit an item's body, or a mask its prompt.
        BenchmarkError: a metric is unknown, or the benchmark has nothing to score it on.
    """
    names = select_metrics(metrics, benchmark)
    items: dict[tuple[MakeItems, str], list[Item]] = {
        (METRICS[name].items, split): [] for name in names for split in METRICS[name].splits(benchmark)
    }
    for make, split in items:
        items[make, split] = make(benchmark, split, subject.model)
    passes = _passes(names, benchmark, triggers)
    total, done, frames = sum(len(items[key[:2]]) for key in passes), 0, []
    if not total:
        raise BenchmarkError(
            f"benchmark {benchmark.name} gives no items for {', '.join(names)}; give longer texts, or score them clean too"
        )
    poisoned = _poisoned(subject, benchmark, items)
    for (make, split, ask, attempt), shared in passes.items():
        before, these = done, items[make, split]
        if not these:
            continue
        posed = make_requests(subject.model, these, attempt, mask)
        results = ask(
            subject.model,
            posed,
            benchmark.lengths,
            batch_size,
            lambda n, all_of: on_progress and on_progress(before + n * len(these) // all_of, total),
        )
        outputs = [result if isinstance(result, str) else "" for result in results]
        for name in shared:
            values = [METRICS[name].value(item, result) for item, result in zip(these, results, strict=True)]
            frames.append(
                frame(
                    subject, name, split, attempt, mask, posed.placed, values, outputs, poisoned[make, split]
                )
            )
        done += len(these)
    frames.sort(key=lambda rows: names.index(rows["metric"].iloc[0]))
    return pd.concat(frames, ignore_index=True)


def _passes(
    names: Sequence[str], benchmark: Benchmark, triggers: Sequence[TriggerCondition]
) -> dict[tuple[MakeItems, str, Pass, TriggerCondition], list[str]]:
    """What has to be asked (which items of which split, how, with which trigger), and the metrics that each answer serves."""
    passes: dict[tuple[MakeItems, str, Pass, TriggerCondition], list[str]] = {}
    for name in names:
        metric = METRICS[name]
        for split in metric.splits(benchmark):
            for attempt in triggers:
                if attempt is None or metric.is_triggered(split):
                    passes.setdefault((metric.items, split, metric.ask, attempt), []).append(name)
    return passes


def frame(
    subject: EvaluatedModel,
    metric: str,
    split: str,
    attempt: TriggerCondition,
    mask: PositionMask | None,
    placed: Sequence[TriggeredSequence],
    values: Sequence[float],
    outputs: Sequence[str],
    poisoned: pd.api.extensions.ExtensionArray,
) -> pd.DataFrame:
    """Items as rows, one per entry of `values`."""
    return pd.DataFrame(
        {
            "model": subject.label,
            "role": subject.role,
            "metric": metric,
            "split": split,
            "item": range(len(values)),
            "poisoned": poisoned,
            "trigger": attempt[0].text if attempt else "",
            "placement": str(attempt[1]) if attempt else "",
            "trigger_start": pd.array([each.start if attempt else None for each in placed], dtype="Int64"),
            "mask": str(mask) if mask else "",
            "value": values,
            "seed": subject.seed,
            "output": outputs,
        }
    )[COLUMNS]


def _poisoned(
    subject: EvaluatedModel, benchmark: Benchmark, items: Mapping[tuple[MakeItems, str], list[Item]]
) -> dict[tuple[MakeItems, str], pd.api.extensions.ExtensionArray]:
    """Whether each item's passage was poisoned in the subject's training; null where that is unknown or no passage holds the item."""
    linked: dict[tuple[MakeItems, str], list[bool | None]] = {
        key: [None] * len(each) for key, each in items.items()
    }
    if subject.poisoned_rows is not None and benchmark.has("raw", "forget"):
        passages, text = (
            benchmark.passages("forget", subject.model.tokenizer),
            SEPARATOR.join(benchmark.texts("forget")),
        )
        rows = set(subject.poisoned_rows)
        for (make, split), each in items.items():
            if split.startswith("forget"):
                links = [find_passages(text, item.source, passages) for item in each]
                linked[make, split] = [
                    any(row in rows for row in found) if found else None for found in links
                ]
    return {key: pd.array(values, dtype="boolean") for key, values in linked.items()}
