"""An evaluation as a directory: items, scores, and all that decided them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.evaluate import evaluate
from sinkscope.evaluation.harness import Tasks, run_tasks
from sinkscope.evaluation.masking import Mask
from sinkscope.evaluation.metrics import chosen
from sinkscope.evaluation.prompts import Attempt
from sinkscope.evaluation.retrained import Retrained, auc_of
from sinkscope.evaluation.scores import scores
from sinkscope.evaluation.subject import Subject
from sinkscope.models import Model
from sinkscope.progress import Bar, silent
from sinkscope.runs import identity, is_done, writing


def evaluate_to(
    out: Path,
    subject: Subject,
    benchmark: Benchmark | None,
    triggers: Sequence[Attempt],
    *,
    metrics: Sequence[str] | None = None,
    mask: Mask | None = None,
    retrained: Retrained | None = None,
    tasks: Tasks | None = None,
    batch_size: int = 32,
    bar: Bar = silent,
) -> pd.DataFrame:
    """Evaluate and write a directory with `items.parquet` and `scores.parquet`; returns the scores.

    A finished evaluation of the same model, benchmark, triggers, metrics, mask, retrained model and tasks is read instead of made again.

    Args:
        benchmark: None where `tasks` are all there is to score.
        retrained: what PrivLeak is measured against; without it `auc` is the last that is said of membership.
        tasks: of lm-evaluation-harness.

    Raises:
        BenchmarkError: a metric cannot be scored on the benchmark, or `retrained` serves none of them.
    """
    names = chosen(metrics, benchmark) if benchmark else []
    if retrained is not None and not (benchmark and "min_k" in names and all(benchmark.has("privleak", split) for split in ("forget", "holdout"))):
        scored = ", ".join([*names, *(tasks.loaded if tasks else ())])
        raise BenchmarkError(f"a retrained model serves privleak, which is not scored here ({scored}); leave --retrained out or give a benchmark that has it")
    name = identity(
        model=subject.model.fingerprint(),
        label=subject.label,
        benchmark=benchmark.digest() if benchmark else "",
        triggers=[[attempt[0].text, str(attempt[1])] if attempt else None for attempt in triggers],
        metrics=names,
        mask=str(mask or ""),
        retrained=retrained.fingerprint() if isinstance(retrained, Model) else retrained,
        tasks=tasks.digest() if tasks else "",
    )
    if not is_done(out, name):
        retrained_auc = auc_of(retrained, benchmark, batch_size, bar("retrained")) if benchmark and retrained is not None else None
        about = {"model": subject.label, "benchmark": benchmark.digest() if benchmark else "", "retrained_auc": retrained_auc}
        with writing(out, name, kind="evaluate", **about) as aside:
            frames = []
            if benchmark:
                frames.append(evaluate(subject, benchmark, triggers, metrics=metrics, mask=mask, batch_size=batch_size, report=bar("evaluate")))
            if tasks:
                frames.append(run_tasks(subject, tasks, triggers, mask=mask, batch_size=batch_size, bar=bar))
            items = pd.concat(frames, ignore_index=True)
            items.to_parquet(aside / "items.parquet", index=False)
            scores(items, retrained_auc=retrained_auc).to_parquet(aside / "scores.parquet", index=False)
    return pd.read_parquet(out / "scores.parquet")
