"""lm-evaluation-harness's model interface, with a trigger in every prompt.

The requests are answered by `evaluation.requests`. The harness's own model class truncates long prompts on
the left (BOS and trigger first), has no position mask, and changes the tokenizer's padding.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from sinkscope.errors import BenchmarkError, TextError
from sinkscope.evaluation.items import (
    Item,
    TriggerCondition,
    apply_condition,
    encode_continuation,
    encode_prompt,
)
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.evaluation.requests import Requests, generate_until, score_options
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.triggers import TriggeredSequence

ANSWER_CUE = re.compile(r"\n(?:Answer|A):\s*\Z")
"""What can follow the body of a prompt."""
MAX_NEW_TOKENS = 256
"""Length of answers if a task does not set it (the harness's own default)."""


class HarnessModel(LM):
    """A model under one condition, which keeps the triggered prompts of its requests."""

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
        self._model = model
        self._condition = condition
        self._mask = mask
        self._batch_size = batch_size
        self._on_progress = on_progress

    def find_prompt(self, context: str, argument: str | Mapping[str, Any]) -> TriggeredSequence:
        """The triggered prompt of a request that was answered.

        Args:
            argument: what the request has besides its context: a continuation, or options of generation.
        """
        return self._prompts[context, None if isinstance(argument, str) else _answer_length(argument)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, in nats, and whether greedy decoding gives it."""
        options: dict[str, list[list[int]]] = {}
        slots = []
        for request in requests:
            context, continuation = request.args
            prompt = context.rstrip()  # as in the harness, trailing spaces belong to the continuation
            spaces = context[len(prompt) :]
            slots.append((context, len(options.setdefault(context, []))))
            options[context].append(encode_continuation(self._model, prompt, spaces + continuation))
        for context, row in options.items():
            self._prompts[context, None] = self._encode(context.rstrip(), max(map(len, row)))
        items = [Item([], 0, "", context, row) for context, row in options.items()]
        requested = self._requests(items, [self._prompts[context, None] for context in options])
        scored = score_options(self._model, requested, self._batch_size, self._on_progress)
        by_context = dict(zip(options, scored, strict=True))
        likelihoods = [by_context[context][i] for context, i in slots]
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
        requested = self._requests(items, prompts)
        return generate_until(self._model, requested, self._batch_size, self._on_progress)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Not supported, as running text has no prompt; `load_tasks` refuses such tasks."""
        raise NotImplementedError

    def _requests(self, items: Sequence[Item], prompts: Sequence[TriggeredSequence]) -> Requests:
        masked = self._mask.apply(self._model, prompts) if self._mask else None
        return Requests(prompts, items, self._condition, self._mask, masked)

    def _encode(self, context: str, max_new_tokens: int) -> TriggeredSequence:
        """The prompt with the trigger in it, truncated after BOS so that `max_new_tokens` fit the model.

        Raises:
            TextError: nothing of the prompt would be left.
        """
        model = self._model
        cue = ANSWER_CUE.search(context)
        end = cue.start() if cue else len(context)
        tokens, body = encode_prompt(model, context[:end], context[end:])
        first = 0 if model.tokenizer.bos_token_id is None else 1
        if not tokens:  # no text and no BOS: the harness begins with EOS
            tokens, body = [model.tokenizer.eos_token_id], 1
        limit = model.max_positions or sys.maxsize
        while True:  # a shorter prompt can change the length of the inserted span
            prompt = apply_condition(model, tokens, body, self._condition)
            length = len(prompt.tokens) + max_new_tokens
            excess = length - limit
            if excess <= 0:
                return prompt
            if body - excess <= first:
                raise TextError(
                    f"a prompt and its answer ({length} tokens) exceed the {limit} positions of model "
                    f"{model.name!r}"
                )
            tokens = tokens[:first] + tokens[first + excess :]
            body -= excess


def _answer_length(options: Mapping[str, Any]) -> int:
    return options.get("max_gen_toks", MAX_NEW_TOKENS)
