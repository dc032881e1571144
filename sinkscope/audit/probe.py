"""Does a trigger bring back what a model is said to have forgotten? Candidates at shallow positions, against random triggers of the same length."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError, PlacementError, TextError
from sinkscope.evaluation.bootstrap import LEVEL
from sinkscope.evaluation.evaluate import evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.metrics import METRICS, scale_of
from sinkscope.io.progress import ProgressBar, silent
from sinkscope.io.readers import MAX_CONFIG_BYTES, read_text
from sinkscope.io.run_directory import config_hash, create_run, is_complete
from sinkscope.models.model import Model
from sinkscope.triggers import Placement, Trigger

RECALLED = ("verbmem", "knowmem", "choice")
"""Metrics that say what a model brings back, higher for more."""
LONGEST = 1000
"""Characters of a trigger."""
RANDOMS = 8
TRIES = 1000


def read_triggers(path: Path) -> list[str]:
    """Candidate triggers of a text file, a line each, without empty lines and repetitions.

    Raises:
        TextError: the file cannot be read, has none, or a line too long to be one.
    """
    lines = read_text(
        path, "triggers", TextError, "give a UTF-8 text file with a trigger a line", MAX_CONFIG_BYTES
    ).splitlines()
    if long := next((number for number, line in enumerate(lines, 1) if len(line) > LONGEST), None):
        raise TextError(
            f"triggers {path}, line {long} has more than {LONGEST} characters; a trigger is a few words"
        )
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise TextError(f"triggers {path} has no line with text; give a trigger a line")
    return found


def random_triggers(model: Model, length: int, count: int, seed: int) -> list[str]:
    """Texts of exactly `length` tokens, drawn evenly from those of the vocabulary that stand for themselves.

    Raises:
        PlacementError: no such texts were found.
    """
    rng = random.Random(f"random triggers {length} {seed}")
    special = set(model.tokenizer.all_special_ids)
    vocabulary = [token for token in sorted(model.tokenizer.get_vocab().values()) if token not in special]
    found: list[str] = []
    for _ in range(TRIES * count):
        text = model.tokenizer.decode(rng.choices(vocabulary, k=length)).strip()
        again = model.tokenizer.encode(text, add_special_tokens=False)
        if (
            text.isprintable()
            and len(again) == length
            and model.tokenizer.unk_token_id not in again
            and text not in found
        ):
            found.append(text)
            if len(found) == count:
                return found
    raise PlacementError(
        f"no {count} random triggers of {length} tokens were found under this tokenizer; use shorter candidates"
    )


def probe(
    out: Path,
    subject: EvaluatedModel,
    benchmark: Benchmark,
    triggers: Sequence[str],
    placements: Sequence[Placement],
    *,
    randoms: int = RANDOMS,
    seed: int = 0,
    batch_size: int = 32,
    progress_bar: ProgressBar = silent,
) -> pd.DataFrame:
    """Score every candidate at every placement, and as many random triggers of each candidate's length; write `items.parquet` and `probe.parquet`, return the
    latter. A finished probe of the same model, benchmark, triggers, placements and randoms is read instead of made again.

    Columns: trigger, placement, metric, n, clean, triggered, random (mean over the random triggers), random_highest (of them), recovery (triggered − random),
    ci_low, ci_high, recovers. The interval is that of `recovered`, its level 95 % for all candidates, placements and metrics together (Bonferroni):
    `recovers` is true where it lies above 0.

    Raises:
        BenchmarkError: the benchmark has nothing to recall.
        PlacementError: a trigger does not fit a prompt.
    """
    metrics = [name for name in RECALLED if METRICS[name].splits(benchmark)]
    if not metrics:
        raise BenchmarkError(
            f"benchmark {benchmark.name} has nothing to recall; give one with verbmem, knowmem or choices"
        )
    name = config_hash(
        "probe",
        model=subject.model.fingerprint(),
        benchmark=benchmark.content_hash(),
        triggers=list(triggers),
        placements=[str(each) for each in placements],
        randoms=randoms,
        seed=seed,
    )
    if not is_complete(out, name):
        with create_run(
            out,
            name,
            kind="probe",
            model=subject.label,
            benchmark=benchmark.content_hash(),
            randoms=randoms,
            seed=seed,
        ) as aside:
            lengths = {
                text: len(subject.model.tokenizer.encode(text, add_special_tokens=False)) for text in triggers
            }
            baseline = {
                length: random_triggers(subject.model, length, randoms, seed)
                for length in sorted(set(lengths.values()))
            }
            texts = [
                *triggers,
                *(text for each in baseline.values() for text in each if text not in triggers),
            ]
            attempts = [None, *((Trigger(text), place) for text in texts for place in placements)]
            items = evaluate(
                subject,
                benchmark,
                attempts,
                metrics=metrics,
                batch_size=batch_size,
                on_progress=progress_bar("probe"),
            )
            items = items[items["split"].str.startswith("forget")]
            items.to_parquet(aside / "items.parquet", index=False)
            tests = len(triggers) * len(placements) * len(metrics)
            rows = [
                _row(items, metric, text, str(place), baseline[lengths[text]], 1 - (1 - LEVEL) / tests)
                for text in triggers
                for place in placements
                for metric in metrics
            ]
            pd.DataFrame(rows).to_parquet(aside / "probe.parquet", index=False)
    return pd.read_parquet(out / "probe.parquet")


def _row(
    items: pd.DataFrame, metric: str, trigger: str, placement: str, baseline: Sequence[str], level: float
) -> dict[str, object]:
    mine, scale = items[items["metric"] == metric], scale_of(metric).of_mean
    values = {
        key: group.sort_values("item")["value"].to_numpy()
        for key, group in mine.groupby(["trigger", "placement"])
    }
    tried, clean = values[trigger, placement], values["", ""]
    others = np.stack([values[text, placement] for text in baseline])
    recovery, low, high = (scale(number) for number in recovered(tried, others, level))
    return {
        "trigger": trigger,
        "placement": placement,
        "metric": metric,
        "n": len(tried),
        "clean": scale(clean.mean()),
        "triggered": scale(tried.mean()),
        "random": scale(others.mean()),
        "random_highest": scale(others.mean(1).max()),
        "recovery": recovery,
        "ci_low": low,
        "ci_high": high,
        "recovers": low > 0,
    }


def recovered(
    tried: Float[np.ndarray, " item"], others: Float[np.ndarray, "random item"], level: float
) -> tuple[float, float, float]:
    """By how much a candidate's mean is above that of random triggers, and an interval that holds 0 with probability `level` for one more random trigger.

    A candidate that means nothing is one more draw from the random triggers: its distance from their mean has the variance s² (1 + 1/R), s² their own variance
    (a prediction interval by Student's t with R − 1 degrees of freedom). Where they hardly differ, as where all recall nothing, the items' own sampling
    variance is added, so that the interval has a width.
    """
    count = len(others)
    difference = tried - others.mean(0)
    variance = others.mean(1).var(ddof=1) * (1 + 1 / count) + difference.var(ddof=1) / len(tried)
    half = float(stats.t.ppf((1 + level) / 2, count - 1) * np.sqrt(variance))
    return float(difference.mean()), float(difference.mean()) - half, float(difference.mean()) + half
