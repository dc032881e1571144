"""What a benchmark holds: records by split, items by metric, and what is missing for the other metrics."""

from __future__ import annotations

from typing import Any

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.benchmarks.directory import COLUMNS, known_splits
from sinkscope.evaluation.metrics import METRICS
from sinkscope.models.model import Model


def describe_contents(benchmark: Benchmark, model: Model | None = None) -> dict[str, Any]:
    """The contents of a benchmark, as JSON values.

    Args:
        model: whose tokenizer cuts passages and prompts: with it `passages` are counted, and every item of
            every metric is made.

    Returns:
        benchmark; records by split; absent, splits that it could have and has not; items by metric and split
        (None: passages of running text, which without a model cannot be counted);
        not_measured, what the other metrics need; and with a model, passages by split of `raw`.

    Raises:
        BenchmarkError: with a model, a record gives no item.
    """
    items: dict[str, dict[str, int | None]] = {}
    not_measured = {}
    for name, metric in METRICS.items():
        splits = metric.splits(benchmark)
        if not splits:
            not_measured[name] = [f"{config}/{split}" for config, each in metric.sources for split in each]
            continue
        config = next(name for name, each in metric.sources if any(benchmark.has(name, s) for s in each))
        for split in splits:
            # running text is cut into passages by a tokenizer
            count = None if config == "raw" else len(benchmark.rows[config][split])
            n_items = len(metric.make_items(benchmark, split, model)) if model else count
            items.setdefault(name, {})[split] = n_items
    contents: dict[str, Any] = {
        "benchmark": benchmark.describe(),
        "chunking": benchmark.chunking,
        "lengths": benchmark.lengths.model_dump(),
        "records": {
            f"{config}/{split}": len(rows)
            for config, splits in benchmark.rows.items()
            for split, rows in splits.items()
        },
        "absent": [
            f"{config}/{split}"
            for config in COLUMNS
            for split in known_splits(config)
            if not benchmark.has(config, split)
        ],
        "items": items,
        "not_measured": not_measured,
    }
    if model:
        raw = benchmark.rows["raw"]
        contents["passages"] = {split: len(benchmark.passages(split, model.tokenizer)) for split in raw}
    return contents
