"""Evaluation items: prompts made from a benchmark's records, with what may follow them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from string import ascii_uppercase
from typing import Any

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.benchmarks.chunking import ANSWER, format_qa
from sinkscope.benchmarks.directory import Record
from sinkscope.errors import BenchmarkError, PlacementError
from sinkscope.models.chat import Body
from sinkscope.models.model import Model
from sinkscope.sinks.locate import locate_passage
from sinkscope.triggers import Placement, Trigger, TriggeredSequence, place

TriggerCondition = tuple[Trigger, Placement] | None
"""A trigger and its placement; None: clean."""
MAX_RAW_PASSAGES = 100
"""Passages of running text that perplexity is measured on if a benchmark has no `privleak` texts."""
TURNS = (("question", "user"), ("answer", "assistant"))
ANSWER_STOPS = ("\n\n", "\nQuestion", "Question:")
"""An answer ends before the first of these."""


@dataclass(frozen=True)
class Item:
    """One item to score.

    Args:
        prompt: token ids, BOS first.
        body: number of leading tokens that placement counts in; of a chat, its `Body`.
        source: the benchmark's own text of the item.
        options: continuations as token ids: the reference of a memorized text, or each choice of a question.
        max_new_tokens: length of a generated continuation, which also ends before the texts in `until`.
    """

    prompt: list[int]
    body: int | Body
    reference: str
    source: str
    options: list[list[int]] = field(default_factory=list)
    max_new_tokens: int = 0
    until: tuple[str, ...] = ()


def encode_prompt(model: Model, body: str, suffix: str) -> tuple[list[int], int | Body]:
    """As `encode_text`; in a chat, body and suffix are the user's turn, which is the body."""
    if model.chat:
        return model.encode_chat([{"role": "user", "content": body + suffix}])
    return encode_text(model, body, suffix)


def encode_text(model: Model, body: str, suffix: str) -> tuple[list[int], int]:
    """Token ids of `body + suffix`, BOS first, and the number of tokens in the body.

    A token across the border counts as part of the suffix.
    """
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    encoded = model.tokenizer(body + suffix, **options)
    prompt = model.with_bos(encoded["input_ids"])
    return prompt, len(prompt) - sum(stop > len(body) for _, stop in encoded["offset_mapping"])


def encode_continuation(model: Model, context: str, continuation: str) -> list[int]:
    """As `encode_text_continuation`; in a chat it is the model's turn, without white space before it."""
    if model.chat:
        return model.tokenizer.encode(continuation.lstrip(), add_special_tokens=False, verbose=False)
    return encode_text_continuation(model, context, continuation)


def encode_text_continuation(model: Model, context: str, continuation: str) -> list[int]:
    """Token ids of `continuation` after `context`; encoded by itself if a token would span the border."""
    encode = partial(model.tokenizer.encode, add_special_tokens=False, verbose=False)
    start, joined = encode(context), encode(context + continuation)
    return joined[len(start) :] if joined[: len(start)] == start else encode(continuation)


def apply_condition(
    model: Model, prompt: list[int], body: int | Body, condition: TriggerCondition
) -> TriggeredSequence:
    """The prompt with the trigger of `condition`; a clean one has an empty span.

    Raises:
        PlacementError: the trigger does not fit the body.
    """
    if condition is None:
        return TriggeredSequence(prompt, 0, 0)
    trigger, placement = condition
    if placement.kind == "system" and model.chat and not isinstance(body, Body):
        raise PlacementError(
            "placement system: running text is no chat, so it has no system prompt; choose metrics with "
            "prompts, as verbmem and knowmem"
        )
    sinks = locate_passage(model, prompt) if placement.kind == "sink" else None
    return place(prompt, trigger, placement, model.tokenizer, body=body, sinks=sinks)


def verbmem_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """Memorized texts: a prompt, and its continuation truncated to `lengths.verbmem_new` tokens.

    The body is the whole prompt.

    Raises:
        BenchmarkError: a record has no text to continue with, or to begin with.
    """
    items = []
    length = benchmark.lengths.verbmem_new
    for number, row in enumerate(benchmark.prompts(split), start=1):
        prompt, body = encode_prompt(model, row["prompt"], "")
        reference = model.tokenizer.encode(row["gt"], add_special_tokens=False)[:length]
        option = encode_continuation(model, row["prompt"], row["gt"])[:length]
        if not prompt:
            raise BenchmarkError(
                f"benchmark {benchmark.name}, verbmem/{split}, record {number} has an empty prompt; remove "
                "it, or set `bos` to always"
            )
        if not option:
            raise BenchmarkError(
                f"benchmark {benchmark.name}, verbmem/{split}, record {number} has an empty gt; remove it"
            )
        text, source = model.tokenizer.decode(reference), row["prompt"] + row["gt"]
        items.append(Item(prompt, body, text, source, [option], length))
    return items


def knowmem_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """Questions after `lengths.in_context` answered ones of the same side; answers end at `ANSWER_STOPS`.

    The body ends with the question, before its `Answer:`. The published prompt ends in a space; here the
    answer's first token begins with it, as in the tokenization of the whole text. In a chat each question is
    a turn of the user, and each answer one of the model.
    """
    answered = benchmark.in_context(split)
    length = benchmark.lengths.knowmem_new
    items = []
    for row in benchmark.questions(split):
        prompt, body = _encode_question(model, answered, row["question"])
        source = format_qa(row["question"], row["answer"])
        items.append(Item(prompt, body, row["answer"], source, [], length, ANSWER_STOPS))
    return items


def _encode_question(model: Model, answered: Sequence[Record], question: str) -> tuple[list[int], int | Body]:
    if model.chat:
        turns = [(row[key], role) for row in answered for key, role in TURNS]
        messages = [{"role": role, "content": text} for text, role in [*turns, (question, "user")]]
        return model.encode_chat(messages)
    context = "".join(f"{format_qa(row['question'], row['answer'])}\n\n" for row in answered)
    return encode_prompt(model, f"{context}Question: {question}", ANSWER)


def choice_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """Multiple choice: the question, a line per choice and `Answer:`, followed by a space and a letter.

    The body ends with the last choice.

    Raises:
        BenchmarkError: a record has more than 26 choices, or its answer is not one of them.
    """
    items = []
    for number, row in enumerate(benchmark.choices(split), start=1):
        letters = ascii_uppercase[: len(row["choices"])]
        if not 0 <= row["answer"] < len(row["choices"]) <= len(ascii_uppercase):
            raise BenchmarkError(
                f"benchmark {benchmark.name}, choices/{split}, record {number}: answer {row['answer']} is "
                f"not one of the {len(row['choices'])} choices (counted from 0, at most 26); correct it"
            )
        lines = [f"{letter}. {choice}" for letter, choice in zip(letters, row["choices"], strict=True)]
        text = "\n".join([row["question"].strip(), *lines])
        prompt, body = encode_prompt(model, text, ANSWER)
        options = [encode_continuation(model, text + ANSWER, f" {letter}") for letter in letters]
        items.append(Item(prompt, body, letters[row["answer"]], row["question"], options))
    return items


def text_items(benchmark: Benchmark, split: str, model: Model) -> list[Item]:
    """Texts whose own tokens are scored: those of `privleak`, truncated to the length of a training passage.

    Without such a split, the first 100 full-length passages of `raw`. The body is the whole text. All tokens
    after the first are scored; the first is BOS, or the text's own if the tokenizer puts none. No chat
    template is used.

    Raises:
        BenchmarkError: a text has no token to score.
    """
    if not benchmark.has("privleak", split):
        passages = benchmark.full_length_passages(split, model.tokenizer)[:MAX_RAW_PASSAGES]
        return [Item(tokens, len(tokens), "", model.tokenizer.decode(tokens)) for tokens in passages]
    items = []
    for number, row in enumerate(benchmark.rows["privleak"][split], start=1):
        tokens = model.encode(row["text"])[: benchmark.passage_length(model.tokenizer)]
        if len(tokens) < 2:
            raise BenchmarkError(
                f"benchmark {benchmark.name}, privleak/{split}, record {number} has no text; remove it"
            )
        items.append(Item(tokens, len(tokens), "", row["text"]))
    return items


@dataclass(frozen=True)
class Tasks:
    """Loaded tasks of lm-evaluation-harness by the requested name (a group has several), each with its first
    `limit` documents."""

    loaded: dict[str, list[Any]]
    limit: int | None = None

    def content_hash(self) -> str:
        """SHA-256 of all documents, the tasks' configurations and the version of lm-eval."""
        content = hashlib.sha256(f"{version('lm-eval')} {self.limit}".encode())
        for name, tasks in self.loaded.items():
            for task in tasks:
                config = {
                    key: value
                    for key, value in task.dump_config().items()
                    if isinstance(value, str | int | float | list | dict | None)
                }
                described = [name, task.task_name, config]
                content.update(json.dumps(described, sort_keys=True, default=_stable_name).encode())
                for document in task.eval_docs:
                    content.update(json.dumps(document, sort_keys=True, default=str).encode())
        return content.hexdigest()


def _stable_name(value: object) -> str:
    """The name of a function instead of its address."""
    return getattr(value, "__qualname__", type(value).__qualname__)
