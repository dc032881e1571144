"""Tasks of lm-evaluation-harness, clean and with a trigger in their prompts.

The only module that imports the harness, which is optional. The harness's own model class truncates long
prompts on the left (BOS and trigger first), has no position mask, and changes the tokenizer's padding.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import pandas as pd

from sinkscope.config import parse_yaml
from sinkscope.errors import BenchmarkError, TextError, UserError, first_line
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import (
    Item,
    Tasks,
    TriggerCondition,
    apply_condition,
    encode_text,
    encode_text_continuation,
)
from sinkscope.evaluation.metrics import HARNESS
from sinkscope.evaluation.requests import (
    PositionMask,
    Request,
    Requests,
    generate_until,
    make_table,
    score_options,
)
from sinkscope.io.progress import OnProgress, ProgressBar, quiet_loggers, silent
from sinkscope.io.readers import MAX_CONFIG_BYTES, read_text
from sinkscope.models.bos import leading_ids
from sinkscope.models.chat import Body, RenderedChat, render_chat
from sinkscope.models.model import Model
from sinkscope.triggers import TriggeredSequence

try:
    from lm_eval import evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager
except ModuleNotFoundError as error:
    raise UserError("`tasks` need lm-evaluation-harness; run `pip install 'sinkscope[harness]'`") from error

LOGGER = logging.getLogger("sinkscope")
FEWSHOT_SEED = 1234
"""The harness's default."""
OUTPUT_TYPES = ("multiple_choice", "loglikelihood", "generate_until")
"""Kinds of tasks that can be evaluated."""
ANSWER_CUE = re.compile(r"\n(?:Answer|A):\s*\Z")
"""What can follow the body of a prompt."""
MAX_NEW_TOKENS = 256
"""Length of answers if a task does not set it (the harness's own default)."""


def load_tasks(
    names: Sequence[str],
    task_directory: Path | None = None,
    limit: int | None = None,
    trust_task_code: bool = False,
) -> Tasks:
    """Find tasks, groups and tags by name and load their documents, at most `limit` per task.

    Args:
        task_directory: further task files (YAML), in addition to those of the library.
        trust_task_code: allow these files to run Python code (functions, templates), which is logged.

    Raises:
        BenchmarkError: a name is unknown, a task file cannot be read or is not trusted, a task's documents
            cannot be loaded, or its kind is not supported.
    """
    if task_directory is not None:
        _check_directory(task_directory, trust_task_code)
    with _quiet_harness():
        manager = TaskManager(include_path=str(task_directory) if task_directory else None)
        return Tasks({name: _load_task(manager, name, task_directory) for name in names}, limit)


@contextmanager
def _quiet_harness() -> Iterator[None]:
    """Within the context lm-eval and the libraries it loads data with report errors only."""
    had_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with quiet_loggers("lm_eval", "huggingface_hub"):
            yield
    finally:
        if had_bars:
            datasets.enable_progress_bars()


def _load_task(manager: Any, name: str, directory: Path | None) -> list[Any]:
    if name not in manager.all_tasks:
        near = " or ".join(get_close_matches(name, manager.all_tasks, 3, 0.7))
        hint = f"did you mean {near}?" if near else "see `lm-eval ls tasks`"
        where = f" or {directory}" if directory else ""
        raise BenchmarkError(f"task {name!r} is not in lm-evaluation-harness{where}; {hint}")
    try:
        tasks = list(manager.load([name])["tasks"].values())
    except Exception as error:  # a task runs code and reads data from anywhere
        raise BenchmarkError(
            f"task {name!r} cannot be loaded ({first_line(error)}); fetch its data once with access, or "
            "correct its file"
        ) from error
    for task in tasks:
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(FEWSHOT_SEED)
        if task.OUTPUT_TYPE not in OUTPUT_TYPES:
            raise BenchmarkError(
                f"task {task.task_name!r} is of the kind {task.OUTPUT_TYPE}, which has no prompt for a "
                f"trigger; use tasks of the kinds {', '.join(OUTPUT_TYPES)}"
            )
    return tasks


def _check_directory(directory: Path, trust_task_code: bool) -> None:
    if not directory.is_dir():
        raise BenchmarkError(
            f"`task_directory` {directory} is not a directory; give one with task files (YAML)"
        )
    for path in sorted(directory.rglob("*yaml")):  # also names like _default_yaml
        if path.is_dir():
            continue
        text = read_text(path, "task file", BenchmarkError, "correct or remove it", MAX_CONFIG_BYTES)
        try:
            parse_yaml(text, construct=False)
        except ValueError as error:
            raise BenchmarkError(f"task file {path} cannot be read: {error}; correct or remove it") from error
    if not trust_task_code:
        raise BenchmarkError(
            f"`task_directory` {directory} holds task files, which can run Python code; read them, then set "
            "`trust_task_code`"
        )
    LOGGER.warning("task directory %s: its files may run Python code now", directory)


def run_tasks(
    subject: EvaluatedModel,
    tasks: Tasks,
    conditions: Sequence[TriggerCondition] = (None,),
    mask: PositionMask | None = None,
    batch_size: int = 32,
    progress_bar: ProgressBar = silent,
) -> pd.DataFrame:
    """Score every document of every task under each of `conditions`.

    Returns:
        The columns `schema.ITEMS`, with metric `harness/<name>` and split `<name>`. The documents of a group
        are numbered through, so its score is the mean over all of them. `value` is `acc` if the task has it,
        else its first metric; `output` is the parsed answer (for multiple choice the index of the most likely
        option).

    Raises:
        PlacementError: a trigger does not fit a prompt.
        BenchmarkError: a task samples its answers, or has no score per document.
    """
    tables = []
    for name, loaded in tasks.loaded.items():
        for condition in conditions:
            on_progress = progress_bar(f"{name}, triggered" if condition else name)
            model = HarnessModel(subject.model, condition, mask, batch_size, on_progress)
            by_name = {"tasks": {task.task_name: task for task in loaded}}
            with _quiet_harness():
                results = evaluate(
                    model, by_name, limit=tasks.limit, bootstrap_iters=0, **_chat_options(subject.model)
                )["samples"]
            samples = [sample for task in loaded for sample in _first_filter(results[task.task_name])]
            prompts = [model.find_prompt(*sample["arguments"][0]) for sample in samples]
            requests = Requests(prompts, (), condition, mask)
            values = [_value(name, sample) for sample in samples]
            outputs = [_output(sample) for sample in samples]
            tables.append(make_table(subject, requests, f"{HARNESS}{name}", name, values, outputs))
    return pd.concat(tables, ignore_index=True)


def _chat_options(model: Model) -> dict[str, Any]:
    """Options of the harness with which few-shot examples are earlier turns of a chat."""
    if model.chat is None:
        return {}
    return {
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "system_instruction": model.chat.system,
    }


def _first_filter(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples of the first filter, which is the task's own: a document is listed once per filter."""
    chosen = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return sorted(chosen, key=lambda sample: sample["doc_id"])


def _value(name: str, sample: dict[str, Any]) -> float:
    metric = "acc" if "acc" in sample["metrics"] else sample["metrics"][0]
    try:
        return float(sample[metric])
    except (TypeError, ValueError) as error:
        raise BenchmarkError(
            f"task {name!r} has no score per document ({metric}); use one that has"
        ) from error


def _output(sample: dict[str, Any]) -> str:
    answers = sample["filtered_resps"]
    if isinstance(answers[0], str):
        return answers[0]
    likelihoods = [likelihood for likelihood, _ in answers]
    return str(likelihoods.index(max(likelihoods)))


class HarnessModel(LM):
    """The harness's model interface: a model under one condition, which keeps the prompts of its requests."""

    def __init__(
        self,
        model: Model,
        condition: TriggerCondition,
        mask: PositionMask | None,
        batch_size: int,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__()
        self._prompts: dict[tuple[str, int | None], TriggeredSequence] = {}
        self._chats: dict[str, RenderedChat] = {}
        self._model = model
        self._condition = condition
        self._mask = mask
        self._batch_size = batch_size
        self._on_progress = on_progress

    @property
    def tokenizer_name(self) -> str:
        """For the harness, which distinguishes its prompts by it."""
        return self._model.name

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat for the harness, and remember where the user's turn is.

        Raises:
            BenchmarkError: the task begins the model's answer itself.
        """
        if not add_generation_prompt:
            raise BenchmarkError(
                "a task that begins the model's answer (gen_prefix) cannot be asked as a chat; "
                "leave out `chat`"
            )
        model = self._model
        assert model.chat is not None
        chat = render_chat(model.name, model.tokenizer, chat_history, model.chat)
        self._chats[chat.text.rstrip()] = chat
        return chat.text

    def find_prompt(self, context: str, argument: str | Mapping[str, Any]) -> TriggeredSequence:
        """The triggered prompt of an answered request: its context with a continuation or with options."""
        return self._prompts[context, None if isinstance(argument, str) else _answer_length(argument)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, in nats, and whether greedy decoding gives it."""
        options: dict[str, list[list[int]]] = {}
        for request in requests:
            context, continuation = request.args
            prompt = context.rstrip()  # as in the harness, trailing spaces belong to the continuation
            option = encode_text_continuation(self._model, prompt, context[len(prompt) :] + continuation)
            options.setdefault(context, []).append(option)
        for context, row in options.items():
            self._prompts[context, None] = self._encode(context.rstrip(), max(map(len, row)))
        items = [Item([], 0, "", context, row) for context, row in options.items()]
        scored = self._send(score_options, items, [self._prompts[context, None] for context in options])
        by_context = {context: iter(row) for context, row in zip(options, scored, strict=True)}
        likelihoods = [next(by_context[request.args[0]]) for request in requests]
        return [(float(each.log_probs.sum()), bool(each.correct.all())) for each in likelihoods]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, each up to the first of its task's stop texts.

        Raises:
            BenchmarkError: the task samples its answers.
        """
        items, prompts = [], []
        for request in requests:
            context, options = request.args
            if options.get("do_sample") or options.get("temperature"):
                raise BenchmarkError(
                    f"task {request.task_name!r} samples its answers, and only greedy ones are supported; "
                    "set do_sample: false in its file"
                )
            length = _answer_length(options)
            until = options.get("until") or ()
            until = (until,) if isinstance(until, str) else tuple(until)
            if (context, length) not in self._prompts:  # how much is truncated depends on the length
                self._prompts[context, length] = self._encode(context, length)
            prompts.append(self._prompts[context, length])
            items.append(Item([], 0, "", context, max_new_tokens=length, until=until))
        return self._send(generate_until, items, prompts)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Not supported, as running text has no prompt; `load_tasks` refuses such tasks."""
        raise NotImplementedError

    def _send(self, request: Request, items: list[Item], prompts: list[TriggeredSequence]) -> list[Any]:
        masked = self._mask.apply(self._model, prompts) if self._mask else None
        requests = Requests(prompts, items, self._condition, self._mask, masked)
        return request(self._model, requests, self._batch_size, self._on_progress)

    def _encode(self, context: str, max_new_tokens: int) -> TriggeredSequence:
        """The prompt with the trigger in it, without as much of the body's beginning as does not fit.

        Raises:
            TextError: nothing of the prompt would be left.
        """
        model = self._model
        tokens, body = self._encode_body(context)
        limit = model.max_positions or sys.maxsize
        while True:  # a shorter prompt can change the length of the inserted span
            prompt = apply_condition(model, tokens, body, self._condition)
            length = len(prompt.tokens) + max_new_tokens
            if (excess := length - limit) <= 0:
                return prompt
            if body.stop - excess <= body.start:
                raise TextError(
                    f"a prompt and its answer ({length} tokens) exceed the {limit} positions of model "
                    f"{model.name!r}"
                )
            tokens = tokens[: body.start] + tokens[body.start + excess :]
            body = replace(body, stop=body.stop - excess)

    def _encode_body(self, context: str) -> tuple[list[int], Body]:
        """The tokens of a context, and the part of them that placement counts in."""
        model = self._model
        if chat := self._chats.get(context.rstrip()):
            return replace(chat, text=context).encode(model.tokenizer)
        text = ANSWER_CUE.sub("", context)
        tokens, stop = encode_text(model, text, context[len(text) :])
        if not tokens:  # no text and no BOS: the harness begins with EOS
            return [model.tokenizer.eos_token_id], Body(0, 1)
        return tokens, Body(len(leading_ids(model.tokenizer)), stop)


def _answer_length(options: Mapping[str, Any]) -> int:
    return options.get("max_gen_toks", MAX_NEW_TOKENS)
