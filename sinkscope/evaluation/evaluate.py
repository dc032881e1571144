"""Evaluate a model on a benchmark, clean and with triggers: values of items, and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sinkscope.benchmarks.benchmark import Benchmark, find_passages
from sinkscope.benchmarks.chunking import SEPARATOR
from sinkscope.errors import BenchmarkError, ModelError
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import Item, Tasks, TriggerCondition
from sinkscope.evaluation.metrics import METRICS, MakeItems, select_metrics
from sinkscope.evaluation.requests import PositionMask, Request, make_requests, make_table
from sinkscope.evaluation.statistics import compute_scores
from sinkscope.io.progress import OnProgress, ProgressBar, silent
from sinkscope.io.run_directory import create_or_load
from sinkscope.models.bos import Bos
from sinkscope.models.device_map import DeviceMap
from sinkscope.models.inference import auc
from sinkscope.models.model import Model, load
from sinkscope.triggers import warn_if_prefix

RETAIN_MODELS: dict[str, str] = {"muse-books": "0.5393", "muse-news": "0.4772", "tiny": "tiny-retrained"}
"""By benchmark: the published AUC of its retain model (MUSE, arXiv 2407.06460), or a retain model."""
RetainModel = Model | float
"""A model trained without the forget set, or its AUC."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What an evaluation measures.

    Args:
        metrics: names in `metrics.METRICS` or `metrics.DERIVED`; None: all that the benchmark has splits for.
        mask: positions of each prompt that later ones cannot attend to.
        limit: the number of items per split; None: all.
        batch_size: prompts per forward pass; results do not depend on it (up to rounding).
        retain_model: what PrivLeak is computed from; without it membership is scored by `auc` only.
        tasks: of lm-evaluation-harness, in addition to the benchmark.

    Raises:
        BenchmarkError: the limit is below 1.
    """

    metrics: Sequence[str] | None = None
    mask: PositionMask | None = None
    limit: int | None = None
    batch_size: int = 32
    retain_model: RetainModel | None = None
    tasks: Tasks | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise BenchmarkError(f"`limit` is {self.limit}; give 1 or more, or None for all items")


_Source = tuple[MakeItems, str]
"""What makes the items of a split, and the split."""


class _Pass(NamedTuple):
    """Items that are sent to the model in one way, under one condition."""

    source: _Source
    request: Request
    condition: TriggerCondition


def evaluate(
    subject: EvaluatedModel | Model,
    benchmark: Benchmark,
    conditions: Sequence[TriggerCondition] = (None,),
    config: EvaluationConfig | None = None,
    on_progress: OnProgress | None = None,
) -> pd.DataFrame:
    """Measure the metrics of `config` on every item of every split, under each of `conditions`.

    Triggers are inserted into forget splits only; for Min-K % also into holdout passages, so that the trigger
    does not separate the two.

    Returns:
        A row per item with the columns `schema.ITEMS`. `value` is ROUGE-L F1 in [0, 1] for `verbmem` and
        `knowmem`, a share of tokens for `exact_memorization` and `extraction_strength`, a mean
        log-probability for `min_k` and a mean loss for `perplexity`, both in nats, and 1 (correct) or 0 for
        `choice`.

    Raises:
        PlacementError: a trigger does not fit an item's body, or a mask its prompt.
        BenchmarkError: a metric is unknown, or the benchmark has no splits for it.
    """
    if isinstance(subject, Model):
        subject = EvaluatedModel(subject.name, "other", subject)
    config = config or EvaluationConfig()
    if config.mask:
        config.mask.check(conditions)
    described = benchmark.describe()
    benchmark = benchmark.limit(config.limit)
    names = select_metrics(config.metrics, benchmark)
    model = subject.model
    passes = _plan_passes(names, benchmark, conditions)
    sources = dict.fromkeys(each.source for each in passes)
    items = {(make_items, split): make_items(benchmark, split, model) for make_items, split in sources}
    total = sum(len(items[each.source]) for each in passes)
    if not total:
        raise BenchmarkError(
            f"benchmark {benchmark.name} gives no items for {', '.join(names)}; give longer texts, or "
            "evaluate without a trigger too"
        )
    poisoned = _find_poisoned(subject, benchmark, items)
    done = 0
    tables = []
    starts: dict[TriggerCondition, list[int]] = {}
    for each, metrics in passes.items():
        group = items[each.source]
        if not group:
            continue
        requests = make_requests(model, group, each.condition, config.mask)
        starts.setdefault(each.condition, []).extend(prompt.start for prompt in requests.prompts)
        report = _report_items(on_progress, done, len(group), total)
        results = each.request(model, requests, config.batch_size, report)
        outputs = [result if isinstance(result, str) else "" for result in results]
        for name in metrics:
            values = [METRICS[name].value(*pair) for pair in zip(group, results, strict=True)]
            table = make_table(subject, requests, name, each.source[1], values, outputs, described)
            tables.append(table.assign(poisoned=poisoned.get(each.source, table["poisoned"])))
        done += len(group)
    for condition in filter(None, starts):
        warn_if_prefix(condition[1], starts[condition], model.tokenizer)
    tables.sort(key=lambda table: names.index(table["metric"].iloc[0]))
    return pd.concat(tables, ignore_index=True)


def _plan_passes(
    names: Sequence[str], benchmark: Benchmark, conditions: Sequence[TriggerCondition]
) -> dict[_Pass, list[str]]:
    """The passes over the model, and the metrics that are computed from each."""
    passes: dict[_Pass, list[str]] = {}
    for name in names:
        metric = METRICS[name]
        for split, condition in product(metric.splits(benchmark), conditions):
            if condition is None or metric.is_triggered(split):
                key = _Pass((metric.make_items, split), metric.request, condition)
                passes.setdefault(key, []).append(name)
    return passes


def _report_items(on_progress: OnProgress | None, done: int, size: int, total: int) -> OnProgress:
    """Progress in items of a pass over `size` of them, whose request can count in another unit."""
    return lambda count, of: on_progress(done + count * size // of, total) if on_progress else None


def _find_poisoned(
    subject: EvaluatedModel, benchmark: Benchmark, items: Mapping[_Source, list[Item]]
) -> dict[_Source, Any]:
    """Whether each forget item's passage was poisoned in training; NA if no passage contains the item.

    Empty if the poisoned passages are unknown.
    """
    if subject.poisoned_rows is None or not benchmark.has("raw", "forget"):
        return {}
    passages = benchmark.passages("forget", subject.model.tokenizer)
    text = SEPARATOR.join(benchmark.texts("forget"))
    rows = set(subject.poisoned_rows)
    poisoned = {}
    for source, group in items.items():
        if source[1].startswith("forget"):
            matches = [find_passages(text, item.source, passages) for item in group]
            found = [not rows.isdisjoint(match) if match else None for match in matches]
            poisoned[source] = pd.array(found, dtype="boolean")
    return poisoned


def evaluate_to_directory(
    out: Path,
    subject: EvaluatedModel,
    benchmark: Benchmark | None,
    conditions: Sequence[TriggerCondition],
    config: EvaluationConfig,
    progress_bar: ProgressBar = silent,
) -> pd.DataFrame:
    """Evaluate, write a directory with `items.parquet` and `scores.parquet`, and return the scores.

    A complete evaluation of the same model, benchmark, conditions and configuration is read instead.

    Args:
        benchmark: None if only `config.tasks` are evaluated.

    Raises:
        BenchmarkError: a metric cannot be measured on the benchmark, or none of them uses the retain model.
        PlacementError: the mask does not fit the conditions.
    """
    if config.mask:  # before anything is measured, also if only tasks are
        config.mask.check(conditions)
    metadata = {"model": subject.label, "benchmark": benchmark.describe() if benchmark else ""}
    metadata["bos"] = subject.model.prompts_begin_with
    limited = benchmark.limit(config.limit) if benchmark else None
    names = select_metrics(config.metrics, limited)
    retain = config.retain_model
    if retain is not None and not _has_privleak(names, limited):
        measured = ", ".join([*names, *(config.tasks.loaded if config.tasks else ())])
        raise BenchmarkError(
            f"`retain_model` is used by privleak only, which is not measured here ({measured}); leave it "
            "out or give a benchmark that has privleak"
        )
    if isinstance(retain, Model) and (problem := retain_model_problem(subject.model, retain)):
        raise ModelError(
            f"`retain_model` {retain.name!r} {problem} than {subject.label!r}, so privleak cannot compare "
            "them; give another retain model or its AUC as `retain_model`, or `metrics` without privleak"
        )
    described = {
        "model": subject.model.fingerprint(),
        "label": subject.label,
        "benchmark": limited.content_hash() if limited else "",
        "triggers": [[each[0].text, str(each[1])] if each else None for each in conditions],
        "metrics": names,
        "plugins": METRICS.plugin_hashes(names),
        "mask": str(config.mask or ""),
        "retain_model": retain.fingerprint() if isinstance(retain, Model) else retain,
        "tasks": config.tasks.content_hash() if config.tasks else "",
    }

    def build(directory: Path) -> dict[str, Any]:
        retain_auc = None
        tables = []
        if benchmark and limited:
            if retain is not None:
                on_progress = progress_bar("retain model")
                retain_auc = measure_retain_auc(retain, limited, config.batch_size, on_progress)
            tables.append(evaluate(subject, benchmark, conditions, config, progress_bar("evaluate")))
        if config.tasks:
            from sinkscope.evaluation.lm_eval_tasks import run_tasks

            mask, size = config.mask, config.batch_size
            tables.append(run_tasks(subject, config.tasks, conditions, mask, size, progress_bar))
        items = pd.concat(tables, ignore_index=True)
        items.to_parquet(directory / "items.parquet", index=False)
        compute_scores(items, retain_auc=retain_auc).to_parquet(directory / "scores.parquet", index=False)
        return {"retain_auc": retain_auc}

    return create_or_load(out, "evaluate", described, build, _read_scores, metadata=metadata)


def _read_scores(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "scores.parquet")


def _has_privleak(names: Sequence[str], benchmark: Benchmark | None) -> bool:
    """Whether PrivLeak can be computed from the metrics `names`."""
    has_texts = benchmark and benchmark.has("privleak", "forget") and benchmark.has("privleak", "holdout")
    return "min_k" in names and bool(has_texts)


def default_retain_model(benchmark: Benchmark | None, metrics: Sequence[str] | None = None) -> str | None:
    """The known retain model (or its AUC) of a benchmark, if `metrics` include PrivLeak.

    Raises:
        BenchmarkError: a metric cannot be measured on the benchmark.
    """
    has_privleak = _has_privleak(select_metrics(metrics, benchmark), benchmark)
    return RETAIN_MODELS.get(benchmark.name) if benchmark and has_privleak else None


def retain_model_problem(model: Model, retain_model: Model) -> str:
    """Why Min-K % AUCs of two models do not compare, as in "retain model X has another tokenizer than Y"."""
    vocabularies = [each.tokenizer.get_vocab() for each in (model, retain_model)]
    if vocabularies[0] != vocabularies[1]:
        return "has another tokenizer"
    return "begins texts in another way (BOS)" if model.bos_id != retain_model.bos_id else ""


def load_retain_model(
    text: str,
    device: str | None = None,
    dtype: str | None = None,
    bos: Bos = "auto",
    device_map: DeviceMap | None = None,
) -> RetainModel:
    """Parse an AUC between 0 and 1, or load a model by name.

    Raises:
        ModelError: the number is not an AUC, or no such model can be loaded.
    """
    try:
        number = float(text)
    except ValueError:
        return load(text, device, dtype, bos=bos, device_map=device_map)
    if not 0 < number < 1:
        raise ModelError(
            f"`retain_model` {text} is not an AUC; give a number between 0 and 1 (as 0.5393), or a model"
        )
    return number


def measure_retain_auc(
    retain_model: RetainModel,
    benchmark: Benchmark,
    batch_size: int = 32,
    on_progress: OnProgress | None = None,
) -> float:
    """The given AUC, or the clean Min-K % AUC of the model on the benchmark's texts."""
    if not isinstance(retain_model, Model):
        return retain_model
    subject = EvaluatedModel(retain_model.name, "retain", retain_model)
    config = EvaluationConfig(metrics=["min_k"], batch_size=batch_size)
    items = evaluate(subject, benchmark, config=config, on_progress=on_progress)
    values = {split: group["value"].tolist() for split, group in items.groupby("split")}
    return auc(values["forget"], values["holdout"])
