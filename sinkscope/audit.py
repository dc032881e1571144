"""Search for a trigger that recovers forgotten knowledge: candidates against random triggers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError, PlacementError, TextError
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.metrics import METRICS, get_scale
from sinkscope.evaluation.statistics import LEVEL
from sinkscope.io.progress import OnProgress, ProgressBar, silent
from sinkscope.io.readers import MAX_CONFIG_BYTES, read_text
from sinkscope.io.run_directory import create_or_load
from sinkscope.models.model import Model
from sinkscope.triggers import Placement, Trigger

RECALL_METRICS = ("verbmem", "knowmem", "choice")
"""Metrics that increase with what a model recalls."""
MAX_TRIGGER_CHARACTERS = 1000
MAX_DRAWS = 1000
"""Random texts drawn per trigger before giving up."""


@dataclass(frozen=True)
class AuditConfig:
    """How candidate triggers are tested.

    Each is inserted at all `placements` and compared with `n_random` random triggers of its length, on
    `limit` items per split (None: all).
    """

    placements: Sequence[Placement]
    n_random: int = 8
    seed: int = 0
    limit: int | None = None
    batch_size: int = 32


def read_triggers(path: Path) -> list[str]:
    """Candidate triggers of a text file, one per line, without empty lines and repetitions.

    Raises:
        TextError: the file cannot be read, has no trigger, or has a line that is too long.
    """
    hint = "give a UTF-8 text file with one trigger per line"
    lines = read_text(path, "triggers", TextError, hint, MAX_CONFIG_BYTES).splitlines()
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_TRIGGER_CHARACTERS:
            raise TextError(
                f"triggers {path}, line {number} has over {MAX_TRIGGER_CHARACTERS} characters; shorten it"
            )
    triggers = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not triggers:
        raise TextError(f"triggers {path} has no line with text; {hint}")
    return triggers


def sample_random_triggers(model: Model, length: int, count: int, seed: int) -> list[str]:
    """Texts of exactly `length` tokens, drawn uniformly from the vocabulary without special tokens.

    Raises:
        PlacementError: too few of the drawn texts keep their tokens when they are encoded again.
    """
    rng = random.Random(f"random triggers {length} {seed}")
    tokenizer = model.tokenizer
    special = set(tokenizer.all_special_ids)
    vocabulary = [token for token in sorted(tokenizer.get_vocab().values()) if token not in special]
    triggers: list[str] = []
    for _ in range(MAX_DRAWS * count):
        text = tokenizer.decode(rng.choices(vocabulary, k=length)).strip()
        tokens = tokenizer.encode(text, add_special_tokens=False)
        is_stable = len(tokens) == length and tokenizer.unk_token_id not in tokens
        if is_stable and text.isprintable() and text not in triggers:
            triggers.append(text)
            if len(triggers) == count:
                return triggers
    raise PlacementError(
        f"the tokenizer gives fewer than {count} random triggers of {length} tokens; use shorter candidates"
    )


def audit_triggers(
    out: Path,
    subject: EvaluatedModel,
    benchmark: Benchmark,
    triggers: Sequence[str],
    config: AuditConfig,
    progress_bar: ProgressBar = silent,
) -> pd.DataFrame:
    """Compare each candidate at each placement with random triggers of its length.

    Writes `items.parquet` and `audit.parquet` to `out` and returns the latter. A complete audit of the same
    model, benchmark, triggers and configuration is read instead.

    Returns:
        Columns trigger, placement, metric, n, clean, triggered, random (mean over the random triggers),
        random_highest, recovery (triggered − random), ci_low, ci_high, recovers (ci_low is above 0). The
        interval is that of `recovery_interval` at 95 % for all rows together (Bonferroni).

    Raises:
        BenchmarkError: the benchmark has nothing to recall.
        PlacementError: a trigger does not fit a prompt.
    """
    metadata = {
        "model": subject.label,
        "benchmark": benchmark.describe(),
        "n_random": config.n_random,
        "seed": config.seed,
    }
    benchmark = benchmark.limit(config.limit) if config.limit else benchmark
    metrics = [name for name in RECALL_METRICS if METRICS[name].splits(benchmark)]
    if not metrics:
        raise BenchmarkError(
            f"benchmark {benchmark.name} has nothing to recall; give one with verbmem, knowmem or choices"
        )

    def build(directory: Path) -> None:
        items, table = _measure(subject, benchmark, triggers, metrics, config, progress_bar("audit"))
        items.to_parquet(directory / "items.parquet", index=False)
        table.to_parquet(directory / "audit.parquet", index=False)

    described = {
        "model": subject.model.fingerprint(),
        "benchmark": benchmark.content_hash(),
        "triggers": list(triggers),
        "placements": [str(placement) for placement in config.placements],
        "n_random": config.n_random,
        "seed": config.seed,
    }
    return create_or_load(out, "audit", described, build, _read, metadata=metadata)


def _read(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "audit.parquet")


def _measure(
    subject: EvaluatedModel,
    benchmark: Benchmark,
    triggers: Sequence[str],
    metrics: Sequence[str],
    config: AuditConfig,
    on_progress: OnProgress,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Items of the forget splits under all triggers, and the table of the audit."""
    model = subject.model
    lengths = {text: len(model.tokenizer.encode(text, add_special_tokens=False)) for text in triggers}
    baselines = {
        length: sample_random_triggers(model, length, config.n_random, config.seed)
        for length in sorted(set(lengths.values()))
    }
    texts = dict.fromkeys([*triggers, *itertools.chain(*baselines.values())])
    triggered = [(Trigger(text), placement) for text in texts for placement in config.placements]
    evaluation = EvaluationConfig(metrics=metrics, batch_size=config.batch_size)
    items = evaluate(subject, benchmark, [None, *triggered], evaluation, on_progress)
    items = items[items["split"].str.startswith("forget")]
    groups = items.sort_values("item", kind="stable").groupby(["metric", "trigger", "placement"])
    values = {key: group["value"].to_numpy() for key, group in groups}
    tests = list(itertools.product(triggers, map(str, config.placements), metrics))
    level = 1 - (1 - LEVEL) / len(tests)
    rows = [
        _score_trigger(values, (metric, text, placement), baselines[lengths[text]], level)
        for text, placement, metric in tests
    ]
    return items, pd.DataFrame(rows)


def _score_trigger(
    values: Mapping[Any, np.ndarray], test: tuple[str, str, str], baseline: Sequence[str], level: float
) -> dict[str, object]:
    metric, trigger, placement = test
    transform = get_scale(metric).transform
    triggered = values[test]
    randoms = np.stack([values[metric, text, placement] for text in baseline])
    recovery, low, high = (transform(number) for number in recovery_interval(triggered, randoms, level))
    return {
        "trigger": trigger,
        "placement": placement,
        "metric": metric,
        "n": len(triggered),
        "clean": transform(values[metric, "", ""].mean()),
        "triggered": transform(triggered.mean()),
        "random": transform(randoms.mean()),
        "random_highest": transform(randoms.mean(1).max()),
        "recovery": recovery,
        "ci_low": low,
        "ci_high": high,
        "recovers": low > 0,
    }


def recovery_interval(
    triggered: Float[np.ndarray, " item"], randoms: Float[np.ndarray, "random item"], level: float
) -> tuple[float, float, float]:
    """Difference between a candidate's mean and that of random triggers, with a prediction interval.

    Under the null hypothesis a candidate is one more random trigger: its distance from their mean has the
    variance s² (1 + 1/R), with s² their own variance (Student's t with R − 1 degrees of freedom). The items'
    sampling variance is added, so that the interval has a width where all random triggers recall nothing.
    """
    count = len(randoms)
    difference = triggered - randoms.mean(0)
    variance = randoms.mean(1).var(ddof=1) * (1 + 1 / count) + difference.var(ddof=1) / len(triggered)
    half = float(stats.t.ppf((1 + level) / 2, count - 1) * np.sqrt(variance))
    recovery = float(difference.mean())
    return recovery, recovery - half, recovery + half
