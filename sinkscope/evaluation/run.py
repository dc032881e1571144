"""An evaluation as a directory: items, scores, and all that decided them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.evaluation.evaluate import evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import TriggerCondition
from sinkscope.evaluation.lm_eval_tasks import Tasks, run_tasks
from sinkscope.evaluation.metrics import select_metrics
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.evaluation.retain_model import Retrained, auc_of
from sinkscope.evaluation.scores import scores
from sinkscope.io.progress import ProgressBar, silent
from sinkscope.io.run_directory import config_hash, create_run, is_complete
from sinkscope.models.model import Model


def evaluate_to_directory(
    out: Path,
    subject: EvaluatedModel,
    benchmark: Benchmark | None,
    triggers: Sequence[TriggerCondition],
    *,
    metrics: Sequence[str] | None = None,
    mask: PositionMask | None = None,
    retrained: Retrained | None = None,
    tasks: Tasks | None = None,
    batch_size: int = 32,
    progress_bar: ProgressBar = silent,
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
    names = select_metrics(metrics, benchmark) if benchmark else []
    if retrained is not None and not (
        benchmark
        and "min_k" in names
        and all(benchmark.has("privleak", split) for split in ("forget", "holdout"))
    ):
        scored = ", ".join([*names, *(tasks.loaded if tasks else ())])
        raise BenchmarkError(
            f"a retrained model serves privleak, which is not scored here ({scored}); leave --retrained out or give a benchmark that has it"
        )
    name = config_hash(
        "evaluate",
        model=subject.model.fingerprint(),
        label=subject.label,
        benchmark=benchmark.content_hash() if benchmark else "",
        triggers=[[attempt[0].text, str(attempt[1])] if attempt else None for attempt in triggers],
        metrics=names,
        mask=str(mask or ""),
        retrained=retrained.fingerprint() if isinstance(retrained, Model) else retrained,
        tasks=tasks.content_hash() if tasks else "",
    )
    if not is_complete(out, name):
        retrained_auc = (
            auc_of(retrained, benchmark, batch_size, progress_bar("retrained"))
            if benchmark and retrained is not None
            else None
        )
        about: dict[str, Any] = {
            "model": subject.label,
            "benchmark": benchmark.content_hash() if benchmark else "",
            "retrained_auc": retrained_auc,
        }
        with create_run(out, name, kind="evaluate", **about) as aside:
            frames = []
            if benchmark:
                frames.append(
                    evaluate(
                        subject,
                        benchmark,
                        triggers,
                        metrics=metrics,
                        mask=mask,
                        batch_size=batch_size,
                        on_progress=progress_bar("evaluate"),
                    )
                )
            if tasks:
                frames.append(
                    run_tasks(
                        subject, tasks, triggers, mask=mask, batch_size=batch_size, progress_bar=progress_bar
                    )
                )
            items = pd.concat(frames, ignore_index=True)
            items.to_parquet(aside / "items.parquet", index=False)
            scores(items, retrained_auc=retrained_auc).to_parquet(aside / "scores.parquet", index=False)
    return pd.read_parquet(out / "scores.parquet")
