"""How forgetting and a backdoor form: scores and attention of a model while it trains, every few steps."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import RecipeError
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.metrics import select_metrics
from sinkscope.evaluation.statistics import bootstrap_mean, compute_scores
from sinkscope.io.atomic import translate_os_errors
from sinkscope.models.model import Model
from sinkscope.schema import TRAJECTORY
from sinkscope.sinks.backends import choose_backend
from sinkscope.sinks.capture import Statistic
from sinkscope.sinks.conditions import insert_trigger
from sinkscope.sinks.locate import EPSILON
from sinkscope.sinks.statistics import OfPassage, SinkStatistics, SpanMass
from sinkscope.unlearning.recipe import Recipe

LOGGER = logging.getLogger("sinkscope")
METRICS = ("verbmem", "knowmem", "choice")
"""Of these the first that the benchmark has."""
FIRST_ALPHA, TRIGGER_ATTENTION = "first_position_alpha", "trigger_attention"
Record = dict[str, Any]


def measure_trajectory(
    recipe: Recipe, subject: EvaluatedModel, benchmark: Benchmark, step: int
) -> list[Record]:
    """Scores and attention after `step` steps, clean and with the recipe's trigger.

    Returns:
        Records with the fields `schema.TRAJECTORY`. Metrics: one of `METRICS`, and over forget passages (mean
        over heads of layers that attend; the interval is over passages) `first_position_alpha`, the α of
        position 0, and `trigger_attention`, the attention to the trigger's span from the queries after it.
    """
    limit = recipe.trajectory.limit
    trigger = (recipe.trigger.trigger, recipe.trigger.where)
    config = EvaluationConfig(metrics=[find_metric(benchmark)], limit=limit)
    items = evaluate(subject, benchmark, [None, trigger], config)
    records: list[Record] = [dict(row) for _, row in compute_scores(items).iterrows()]
    passages = benchmark.full_length_passages("forget", subject.model.tokenizer)[:limit]
    for condition in (None, trigger):
        placed, spans = passages, None
        if condition:
            placed, spans = insert_trigger(subject.model, passages, *condition)
        text, where = (condition[0].text, str(condition[1])) if condition else ("", "")
        about: Record = {"trigger": text, "placement": where}
        for name, values in _attention(subject.model, placed, spans).items():
            value, low, high = bootstrap_mean(values)
            numbers: Record = {"value": value, "n": len(values), "ci_low": low, "ci_high": high}
            keys: Record = {"metric": name, "split": "forget", "subset": "all"}
            records.append(keys | about | numbers)
    return [{"step": step} | {key: record[key] for key in TRAJECTORY if key != "step"} for record in records]


def find_metric(benchmark: Benchmark) -> str:
    """The metric of a trajectory.

    Raises:
        RecipeError: the benchmark has none of `METRICS`.
    """
    available = select_metrics(None, benchmark)
    if found := [name for name in METRICS if name in available]:
        return found[0]
    raise RecipeError(
        f"recipe trajectory: benchmark {benchmark.name} has none of {', '.join(METRICS)}; leave it out"
    )


def _attention(model: Model, passages: list[list[int]], spans: list[range] | None) -> dict[str, np.ndarray]:
    """A value per passage of each metric."""
    shape = (model.n_layers, model.n_heads)
    sinks = [SinkStatistics(*shape, len(tokens), EPSILON) for tokens in passages]
    masses = [SpanMass(*shape, spans) for _ in passages] if spans else []
    statistics: list[Statistic] = [OfPassage(i, [sinks[i], *masses[i : i + 1]]) for i in range(len(passages))]
    choose_backend(model, passages).capture(model, passages, statistics)
    values = {FIRST_ALPHA: [each.result()["alpha"][..., 0] for each in sinks]}
    if masses:
        values[TRIGGER_ATTENTION] = [each.result()["span_mass"] for each in masses]
    means = {name: np.array([np.nanmean(each.numpy()) for each in group]) for name, group in values.items()}
    return {name: group[np.isfinite(group)] for name, group in means.items() if np.isfinite(group).any()}


def read_trajectory(path: Path) -> pd.DataFrame:
    """What `Trajectory` keeps: a row per step and number, with the columns `schema.TRAJECTORY`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines], columns=TRAJECTORY)


class Trajectory(TrainerCallback):
    """Measures before the first step, every few steps, and after the last; goes on where a run is resumed.

    Args:
        path: keeps the records while the run is not complete.
    """

    def __init__(self, recipe: Recipe, subject: EvaluatedModel, benchmark: Benchmark, path: Path) -> None:
        self._recipe, self._subject, self._benchmark, self._path = recipe, subject, benchmark, path
        self._records: list[Record] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self._measure(0, state)
        elif self._path.is_file():
            table = read_trajectory(self._path)
            self._records = table[table["step"] <= state.global_step].to_dict("records")
        else:
            LOGGER.warning("the trajectory before step %d is lost: %s is gone", state.global_step, self._path)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self._recipe.trajectory.every is not None
        is_last = state.global_step >= state.max_steps or control.should_training_stop
        if is_last or state.global_step % self._recipe.trajectory.every == 0:
            self._measure(state.global_step, state)

    def _measure(self, step: int, state: TrainerState) -> None:
        self._records += measure_trajectory(self._recipe, self._subject, self._benchmark, step)
        if state.is_world_process_zero:
            lines = "".join(json.dumps(record) + "\n" for record in self._records)
            with translate_os_errors(self._path.parent):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary = self._path.with_suffix(".partial")
                temporary.write_text(lines, encoding="utf-8")
                os.replace(temporary, self._path)
