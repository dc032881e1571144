"""Every metric of a benchmark, declared: what it is scored on, how the model is asked, what an item is worth, and how a score is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.items import Item
from sinkscope.evaluation.likelihood import exact_memorization, extraction_strength, mean_loss, min_k_score
from sinkscope.evaluation.memorization import knowmem_items, rouge_l, verbmem_items
from sinkscope.evaluation.multiple_choice import choice_items
from sinkscope.evaluation.perplexity import text_items
from sinkscope.evaluation.requests import Pass, answer_questions, continue_prompts, score_options, score_texts
from sinkscope.models.model import Model

MakeItems = Callable[[Benchmark, str, Model], list[Item]]
"""Called with a benchmark, a split and the model whose tokens the items are made of."""


@dataclass(frozen=True)
class Scale:
    """How the mean over items becomes a score (a rising function), the score's unit, and how many decimals it is shown with."""

    of_mean: Callable[[float], float]
    unit: str
    decimals: int = 1


def _percent(mean: float) -> float:
    return 100 * mean


ROUGE = Scale(_percent, "ROUGE-L × 100")
TOKENS = Scale(_percent, "% of tokens")
RIGHT = Scale(_percent, "% right")
NATS = Scale(float, "nats", 2)
PERPLEXITY = Scale(math.exp, "perplexity", 2)
AUC = Scale(float, "AUC", 3)
PRIVLEAK = Scale(float, "% of retrained AUC")


@dataclass(frozen=True)
class Metric:
    """`sources`: configurations of a benchmark and their splits, the first that it has any of; `beside`: splits that get the trigger beside forget splits."""

    sources: tuple[tuple[str, tuple[str, ...]], ...]
    items: MakeItems
    ask: Pass
    value: Callable[[Item, Any], float]
    scale: Scale
    beside: tuple[str, ...] = ()

    def splits(self, benchmark: Benchmark) -> tuple[str, ...]:
        """The splits of `benchmark` that it is scored on; none if the benchmark lacks them."""
        for config, splits in self.sources:
            if found := tuple(split for split in splits if benchmark.has(config, split)):
                return found
        return ()

    def is_triggered(self, split: str) -> bool:
        return split.startswith("forget") or split in self.beside


def _rouge(item: Item, output: str) -> float:
    return rouge_l(item.reference, output)


def _of_reading(measure: Callable[[Any], float]) -> Callable[[Item, Any], float]:
    return lambda item, reading: measure(reading)


VERBMEM_SPLITS = (("verbmem", ("forget", "retain")),)
MIA_SPLITS = (("privleak", ("forget", "retain", "retain2", "holdout")),)
PERPLEXITY_SPLITS = (("privleak", ("retain", "retain2", "holdout")), ("raw", ("retain2", "holdout")))
METRICS = {
    "verbmem": Metric(VERBMEM_SPLITS, verbmem_items, continue_prompts, _rouge, ROUGE),
    "knowmem": Metric(
        (("knowmem", ("forget_qa", "retain_qa")),), knowmem_items, answer_questions, _rouge, ROUGE
    ),
    "exact_memorization": Metric(
        VERBMEM_SPLITS, verbmem_items, score_texts, _of_reading(exact_memorization), TOKENS
    ),
    "extraction_strength": Metric(
        VERBMEM_SPLITS, verbmem_items, score_texts, _of_reading(extraction_strength), TOKENS
    ),
    "min_k": Metric(MIA_SPLITS, text_items, score_texts, _of_reading(min_k_score), NATS, beside=("holdout",)),
    "perplexity": Metric(PERPLEXITY_SPLITS, text_items, score_texts, _of_reading(mean_loss), PERPLEXITY),
    "choice": Metric(
        (("choices", ("forget", "retain")),),
        choice_items,
        score_options,
        lambda item, letter: float(letter == item.reference),
        RIGHT,
    ),
}
DERIVED = {"auc": ("min_k", AUC), "privleak": ("min_k", PRIVLEAK)}
"""Scores of a whole split: the metric whose items they come of, and their scale."""
DIVERGENCE = "divergence"
"""The metric of `evaluation.divergence`, which takes a second model."""
HARNESS = "harness/"
"""How the metrics of lm-evaluation-harness begin; each is a share of documents that are right."""


def scale_of(name: str) -> Scale:
    """The scale of a metric, of a derived score, or of a task of lm-evaluation-harness."""
    if name.startswith(HARNESS):
        return RIGHT
    if name == DIVERGENCE:
        return NATS
    return DERIVED[name][1] if name in DERIVED else METRICS[name].scale


def unit_of(name: str) -> str:
    """The unit of a score; nothing where the score is not known, as of another version."""
    try:
        return scale_of(name).unit
    except KeyError:
        return ""


def select_metrics(asked: Sequence[str] | None, benchmark: Benchmark) -> list[str]:
    """The metrics to score, in the order of the registry: those asked for (a derived score stands for its items), or all that the benchmark has.

    Raises:
        BenchmarkError: a metric is unknown, the benchmark has nothing to score it on, or has nothing to score at all.
    """
    had = [name for name, metric in METRICS.items() if metric.splits(benchmark)]
    if asked is None:
        if not had:
            raise BenchmarkError(
                f"benchmark {benchmark.name} has nothing to score: no {', '.join(_lacking(METRICS))}; give one that has"
            )
        return had
    names = []
    for name in asked:
        if name not in METRICS and name not in DERIVED:
            raise BenchmarkError(f"metric {name!r} is unknown; use {', '.join([*METRICS, *DERIVED])}")
        source = DERIVED[name][0] if name in DERIVED else name
        if source not in had:
            raise BenchmarkError(
                f"benchmark {benchmark.name} has nothing to score {name} on ({', '.join(_lacking([source]))}); it can be scored by {', '.join(had) or 'none'}"
            )
        names.append(source)
    return [name for name in METRICS if name in names]


def _lacking(names: Iterable[str]) -> list[str]:
    return list(
        dict.fromkeys(
            f"{config}/{split}"
            for name in names
            for config, splits in METRICS[name].sources
            for split in splits
        )
    )
