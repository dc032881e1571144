"""Tasks of lm-evaluation-harness, clean and with a trigger in their prompts, put there as into everything else."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.config import parse_yaml
from sinkscope.errors import BenchmarkError, UserError
from sinkscope.evaluation.evaluate import frame
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import TriggerCondition
from sinkscope.evaluation.metrics import HARNESS
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.io.progress import ProgressBar, silent
from sinkscope.io.readers import MAX_CONFIG_BYTES, read_text

LOGGER = logging.getLogger("sinkscope")
FEWSHOT_SEED = 1234
"""The harness's own."""
SERVED = ("multiple_choice", "loglikelihood", "generate_until")


@dataclass(frozen=True)
class Tasks:
    """Loaded tasks under the names they were asked by (a group has many), each cut to its first `limit` documents."""

    loaded: dict[str, list[Any]]
    limit: int | None = None

    def content_hash(self) -> str:
        """SHA-256 of all documents, of what the tasks say about themselves, and of the library's version."""
        content = hashlib.sha256(f"{version('lm-eval')} {self.limit}".encode())
        for name, tasks in self.loaded.items():
            for task in tasks:
                about = {
                    key: value
                    for key, value in task.dump_config().items()
                    if isinstance(value, str | int | float | list | dict | None)
                }
                content.update(
                    json.dumps([name, task.task_name, about], sort_keys=True, default=_stable).encode()
                )
                for document in task.eval_docs:
                    content.update(json.dumps(document, sort_keys=True, default=str).encode())
        return content.hexdigest()


def _stable(value: object) -> str:
    """The name of a function rather than its address."""
    return getattr(value, "__qualname__", type(value).__qualname__)


def load_tasks(
    names: Sequence[str],
    directory: Path | None = None,
    limit: int | None = None,
    trust_task_code: bool = False,
) -> Tasks:
    """Find tasks, groups and tags by name and load their documents.

    Args:
        directory: task files (YAML) of one's own, beside those of the library.
        trust_task_code: run what they name and hold (functions in Python, templates), of which the log of `sinkscope` tells; without it they are refused.

    Raises:
        UserError: lm-eval is not installed.
        BenchmarkError: a name is unknown, a task file cannot be read or is not trusted, a task's documents cannot be had, or it is of a kind that cannot be
            served.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            "--harness needs lm-evaluation-harness; run `pip install 'sinkscope[harness]'`"
        ) from error
    from datasets import disable_progress_bars

    disable_progress_bars()
    for library in ("lm_eval", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if directory is not None:
        _check_directory(directory, trust_task_code)
    manager = TaskManager(include_path=str(directory) if directory else None)
    loaded: dict[str, list[Any]] = {}
    for name in names:
        if name not in manager.all_tasks:
            near = get_close_matches(name, manager.all_tasks, 3, 0.7)
            raise BenchmarkError(
                f"task {name!r} is not in lm-evaluation-harness{f' or {directory}' if directory else ''}; "
                + (f"did you mean {' or '.join(near)}?" if near else "see `lm-eval ls tasks`")
            )
        try:
            loaded[name] = list(manager.load([name])["tasks"].values())
        except Exception as error:  # a task is code and data from anywhere
            why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise BenchmarkError(
                f"task {name!r} cannot be loaded ({why}); fetch its data once with access, or mend its file"
            ) from error
        for task in loaded[name]:
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(FEWSHOT_SEED)
            if task.OUTPUT_TYPE not in SERVED:
                raise BenchmarkError(
                    f"task {task.task_name!r} is of the kind {task.OUTPUT_TYPE}, which has no prompt for a trigger; use tasks of the kinds {', '.join(SERVED)}"
                )
    return Tasks(loaded, limit)


def _check_directory(directory: Path, trust_task_code: bool) -> None:
    if not directory.is_dir():
        raise BenchmarkError(f"--tasks {directory} is no directory; give one that holds task files (YAML)")
    for path in sorted(directory.rglob("*yaml")):  # files to be included have names like _default_yaml
        if path.is_dir():
            continue
        text = read_text(path, "task file", BenchmarkError, "mend or remove it", MAX_CONFIG_BYTES)
        try:
            parse_yaml(text, construct=False)
        except ValueError as error:
            raise BenchmarkError(f"task file {path} cannot be read: {error}; mend or remove it") from error
    if not trust_task_code:
        raise BenchmarkError(
            f"--tasks {directory} holds task files, which can run Python code; read them, then give --trust-task-code"
        )
    LOGGER.warning("tasks %s: Python code that they name or hold may run now (--trust-task-code)", directory)


def run_tasks(
    subject: EvaluatedModel,
    tasks: Tasks,
    triggers: Sequence[TriggerCondition] = (None,),
    *,
    mask: PositionMask | None = None,
    batch_size: int = 32,
    progress_bar: ProgressBar = silent,
) -> pd.DataFrame:
    """Score every document of every task under each entry of `triggers`.

    Returns:
        The columns of `evaluate`. Metric `harness/<name>` and split `<name>` as it was asked for; a group's documents are counted through, so that its
        score is the mean over them all. Value: `acc` where the task has it, else its first metric. Output: what the harness made of the answer (of multiple
        choice: the index of the likeliest).

    Raises:
        PlacementError: a trigger does not fit a prompt.
        BenchmarkError: a task samples its answers, or scores no single documents.
    """
    from lm_eval import evaluate

    from sinkscope.evaluation.lm_eval_model import HarnessModel

    frames = []
    for name, loaded in tasks.loaded.items():
        for attempt in triggers:
            model = HarnessModel(
                subject.model,
                attempt,
                mask,
                batch_size,
                progress_bar(f"{name}{', triggered' if attempt else ''}"),
            )
            found = evaluate(
                model,
                {"tasks": {task.task_name: task for task in loaded}},
                limit=tasks.limit,
                bootstrap_iters=0,
            )["samples"]
            samples = [sample for task in loaded for sample in _first_filter(found[task.task_name])]
            placed = [model.placed[sample["arguments"][0][0]] for sample in samples]
            values, outputs = (
                [_value(name, sample) for sample in samples],
                [_output(sample) for sample in samples],
            )
            unknown = pd.array([None] * len(samples), dtype="boolean")
            frames.append(
                frame(subject, f"{HARNESS}{name}", name, attempt, mask, placed, values, outputs, unknown)
            )
    return pd.concat(frames, ignore_index=True)


def _first_filter(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A document is listed once for each way of reading the answer; the first is the task's own."""
    return sorted(
        (sample for sample in samples if sample["filter"] == samples[0]["filter"]),
        key=lambda sample: sample["doc_id"],
    )


def _value(name: str, sample: dict[str, Any]) -> float:
    metric = "acc" if "acc" in sample["metrics"] else sample["metrics"][0]
    try:
        return float(sample[metric])
    except (TypeError, ValueError) as error:
        raise BenchmarkError(
            f"task {name!r} scores no single documents ({metric}); use one that does"
        ) from error


def _output(sample: dict[str, Any]) -> str:
    answers = sample["filtered_resps"]
    if isinstance(answers[0], str):
        return answers[0]
    likelihoods = [likelihood for likelihood, _ in answers]
    return str(likelihoods.index(max(likelihoods)))
