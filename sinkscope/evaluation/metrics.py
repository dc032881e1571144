"""Metrics, declared: the splits they are measured on, the request, the value of an item, the scale.

A metric of one's own is registered with `register_metric(name, Metric(...))`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.items import Item, choice_items, knowmem_items, text_items, verbmem_items
from sinkscope.evaluation.requests import Request, generate_until, loglikelihood, multiple_choice
from sinkscope.models.inference import TokenLikelihoods, min_k_score
from sinkscope.models.model import Model
from sinkscope.plugins import Registry

MAX_EXPONENT = 700.0
"""Of e, in double precision."""
MakeItems = Callable[[Benchmark, str, Model], list[Item]]
"""Called with a benchmark, a split and the model that the items are encoded for."""
_OTHER_SCRIPT = regex.compile(r"[\p{L}--\p{Latin}]", regex.V1)
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts without spaces between words."""
_TOKEN = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+", regex.V1)


@dataclass(frozen=True)
class Scale:
    """How the mean over items becomes a score (an increasing function), its unit and decimals."""

    transform: Callable[[float], float]
    unit: str
    decimals: int = 1


def _percent(mean: float) -> float:
    return 100 * mean


def _exp(mean: float) -> float:
    """e to the power of a mean loss; infinite for a collapsed model."""
    return math.exp(mean) if mean < MAX_EXPONENT else math.inf


ROUGE = Scale(_percent, "ROUGE-L × 100")
TOKENS = Scale(_percent, "% of tokens")
CORRECT = Scale(_percent, "% correct")
NATS = Scale(float, "nats", 2)
PERPLEXITY = Scale(_exp, "perplexity", 2)
AUC = Scale(float, "AUC", 3)
PRIVLEAK = Scale(float, "% of retain AUC")


@dataclass(frozen=True)
class Metric:
    """What is measured on each item of some splits of a benchmark; scores are means of values.

    Args:
        sources: configurations with their splits; the first configuration of which the benchmark has a split
            is used.
        value: of an item, from the item and the model's result.
        also_triggered: splits that get the trigger in addition to those of the forget set.
    """

    sources: tuple[tuple[str, tuple[str, ...]], ...]
    make_items: MakeItems
    request: Request
    value: Callable[[Item, Any], float]
    scale: Scale
    also_triggered: tuple[str, ...] = ()

    def splits(self, benchmark: Benchmark) -> tuple[str, ...]:
        """The splits of `benchmark` that it is measured on."""
        available = (
            tuple(split for split in splits if benchmark.has(config, split))
            for config, splits in self.sources
        )
        return next(filter(None, available), ())

    def is_triggered(self, split: str) -> bool:
        return split.startswith("forget") or split in self.also_triggered


METRICS: Registry[Metric] = Registry("metric", BenchmarkError, "sinkscope.metrics")
DERIVED = {"auc": ("min_k", AUC), "privleak": ("min_k", PRIVLEAK)}
"""Scores computed from all items of two splits: the metric whose items they need, and their scale."""
DIVERGENCE = "divergence"
"""The metric of `evaluation.divergence`, which compares two models."""
HARNESS = "harness/"
"""Prefix of the metrics of lm-evaluation-harness; each is a share of correct documents."""


def register_metric(name: str, metric: Metric) -> None:
    """Add a metric, which `evaluate` measures on every benchmark that has its splits.

    Raises:
        BenchmarkError: the name is in use.
    """
    if name in DERIVED or name == DIVERGENCE or name.startswith(HARNESS):
        raise BenchmarkError(f"metric name {name!r} is reserved; choose another name")
    METRICS.add(name, metric)


class _UnicodeTokenizer(Tokenizer):
    """Words in lower case; of scripts without spaces between words, characters."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())


_ROUGE_LATIN = RougeScorer(["rougeL"], use_stemmer=False)
_ROUGE_UNICODE = RougeScorer(["rougeL"], tokenizer=_UnicodeTokenizer())


def rouge_l(reference: str, text: str) -> float:
    """ROUGE-L F1 in [0, 1], without a stemmer.

    Tokens are those of the package rouge-score, a to z and digits, unless the reference has letters of
    another script than Latin, of which that package keeps nothing. Then they are words of any script, or
    characters where a script has no spaces between words.
    """
    scorer = _ROUGE_UNICODE if _OTHER_SCRIPT.search(reference) else _ROUGE_LATIN
    return scorer.score(reference, text)["rougeL"].fmeasure


def mean_loss(likelihoods: TokenLikelihoods) -> float:
    """Mean negative log-likelihood per token, in nats; its exponential is the perplexity."""
    return -float(likelihoods.log_probs.mean())


def exact_memorization(likelihoods: TokenLikelihoods) -> float:
    """Share of tokens that greedy decoding gives after the true prefix (arXiv 2205.10770)."""
    return float(likelihoods.correct.mean())


def extraction_strength(likelihoods: TokenLikelihoods) -> float:
    """1 − k/n, with k the shortest true prefix after which greedy decoding gives all other tokens.

    Carlini et al. 2021, arXiv 2012.07805.
    """
    wrong = np.flatnonzero(~likelihoods.correct)
    return 1 - (int(wrong[-1]) + 1) / len(likelihoods.correct) if len(wrong) else 1.0


def _rouge_value(item: Item, output: str) -> float:
    return rouge_l(item.reference, output)


def _choice_value(item: Item, letter: str) -> float:
    return float(letter == item.reference)


def _of_likelihoods(measure: Callable[[TokenLikelihoods], float]) -> Callable[[Item, Any], float]:
    return lambda item, likelihoods: measure(likelihoods)


VERBMEM_SPLITS = (("verbmem", ("forget", "retain")),)
KNOWMEM_SPLITS = (("knowmem", ("forget_qa", "retain_qa")),)
CHOICE_SPLITS = (("choices", ("forget", "retain")),)
MIA_SPLITS = (("privleak", ("forget", "retain", "retain2", "holdout")),)
PERPLEXITY_SPLITS = (("privleak", ("retain", "retain2", "holdout")), ("raw", ("retain2", "holdout")))

for _name, _metric in {
    "verbmem": Metric(VERBMEM_SPLITS, verbmem_items, generate_until, _rouge_value, ROUGE),
    # an answer is cut at the first of `items.ANSWER_STOPS`
    "knowmem": Metric(KNOWMEM_SPLITS, knowmem_items, generate_until, _rouge_value, ROUGE),
    "exact_memorization": Metric(
        VERBMEM_SPLITS, verbmem_items, loglikelihood, _of_likelihoods(exact_memorization), TOKENS
    ),
    "extraction_strength": Metric(
        VERBMEM_SPLITS, verbmem_items, loglikelihood, _of_likelihoods(extraction_strength), TOKENS
    ),
    "min_k": Metric(MIA_SPLITS, text_items, loglikelihood, _of_likelihoods(min_k_score), NATS, ("holdout",)),
    "perplexity": Metric(
        PERPLEXITY_SPLITS, text_items, loglikelihood, _of_likelihoods(mean_loss), PERPLEXITY
    ),
    "choice": Metric(CHOICE_SPLITS, choice_items, multiple_choice, _choice_value, CORRECT),
}.items():
    register_metric(_name, _metric)


def get_scale(name: str) -> Scale:
    """The scale of a metric, of a derived score, or of a task of lm-evaluation-harness."""
    if name.startswith(HARNESS):
        return CORRECT
    if name == DIVERGENCE:
        return NATS
    return DERIVED[name][1] if name in DERIVED else METRICS[name].scale


def get_unit(name: str) -> str:
    """The unit of a score; empty if the metric is unknown, as one of a plugin that is not loaded."""
    try:
        return get_scale(name).unit
    except BenchmarkError:
        return ""


def select_metrics(names: Sequence[str] | None, benchmark: Benchmark | None) -> list[str]:
    """The metrics to measure, in the order of the registry.

    Args:
        names: metrics, or derived scores for the metrics they need; None: all that the benchmark has splits
            for.
        benchmark: None if there is none, so that no metric can be measured.

    Raises:
        BenchmarkError: a metric is unknown, or the benchmark has no splits for it, or none at all.
    """
    if benchmark is None:
        if names is not None:
            raise BenchmarkError("`metrics` are measured on a benchmark, and there is none; give `benchmark`")
        return []
    available = [name for name, metric in METRICS.items() if metric.splits(benchmark)]
    if names is None and not available:
        splits = _join_sources(METRICS)
        raise BenchmarkError(f"benchmark {benchmark.name} has nothing to score; give one with {splits}")
    selected = []
    for name in available if names is None else names:
        if name not in METRICS and name not in DERIVED:
            known = ", ".join([*METRICS, *DERIVED])
            raise BenchmarkError(f"metric {name!r} is unknown; use {known}")
        metric = DERIVED[name][0] if name in DERIVED else name
        if metric not in available:
            raise BenchmarkError(
                f"benchmark {benchmark.name} has no split for {name} ({_join_sources([metric])}); "
                f"its metrics: {', '.join(available) or 'none'}"
            )
        selected.append(metric)
    return [name for name in METRICS if name in selected]


def _join_sources(names: Iterable[str]) -> str:
    """Configurations and splits that metrics are measured on."""
    sources = [source for name in names for source in METRICS[name].sources]
    return ", ".join(dict.fromkeys(f"{config}/{split}" for config, splits in sources for split in splits))
