"""Whole texts that are read, not continued: for membership (Min-K %) and perplexity."""

from __future__ import annotations

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.items import Item
from sinkscope.models.model import Model

MOST = 100
"""Passages of running text that perplexity reads, where a benchmark has no texts for membership."""


def text_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """The texts of `privleak`, each cut to the length of a training passage; without such a split, the first 100 whole passages of `raw`.

    The body is everything. All tokens behind the first are scored: the first is BOS, or the text's own where the tokenizer has no BOS.

    Raises:
        BenchmarkError: a text has no token that could be scored.
    """
    if not benchmark.has("privleak", split):
        return [
            Item(tokens, len(tokens), "", model.tokenizer.decode(tokens))
            for tokens in benchmark.full_length_passages(split, model.tokenizer)[:MOST]
        ]
    items = []
    for number, row in enumerate(benchmark.rows["privleak"][split], start=1):
        tokens = model.encode(row["text"])[: benchmark.lengths.passage]
        if len(tokens) < 2:
            raise BenchmarkError(
                f"benchmark {benchmark.name}, privleak/{split}, record {number} has no text to read; remove it"
            )
        items.append(Item(tokens, len(tokens), "", row["text"]))
    return items
