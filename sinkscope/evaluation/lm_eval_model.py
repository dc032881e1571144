"""A model as lm-evaluation-harness asks it: its requests, answered by the same reading and generating as our own items.

The harness's own model class cuts long prompts from the left, BOS and trigger first, knows no mask, and sets the tokenizer's padding; this one does not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from sinkscope.errors import BenchmarkError, TextError
from sinkscope.evaluation.generation import generate
from sinkscope.evaluation.items import TriggerCondition, ask, following, put
from sinkscope.evaluation.likelihood import multiple_choice
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.triggers import TriggeredSequence

ANSWER = re.compile(r"\n(?:Answer|A):\s*\Z")
"""What may stand behind the body of a prompt."""
NEW_TOKENS = 256
"""How long answers may be where a task does not say (the harness's own default)."""


class HarnessModel(LM):
    """Answers requests with one trigger (or none) in every prompt. `placed` keeps where it stands, by the prompt's text."""

    def __init__(
        self,
        model: Model,
        attempt: TriggerCondition,
        mask: PositionMask | None,
        batch_size: int,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__()
        self.placed: dict[str, TriggeredSequence] = {}
        self._model, self._attempt, self._mask, self._batch_size, self._report = (
            model,
            attempt,
            mask,
            batch_size,
            on_progress,
        )

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation behind its prompt, in nats, and whether greedy decoding would give it."""
        options: dict[str, list[list[int]]] = {}
        slots = []
        for request in requests:
            context, continuation = request.args
            spaces = context[
                len(context.rstrip()) :
            ]  # as the harness does: they belong to the first word of what follows
            slots.append((context, len(options.setdefault(context, []))))
            options[context].append(following(self._model, context.rstrip(), spaces + continuation))
        for context, each in options.items():
            self.placed[context] = self._place(context.rstrip(), max(map(len, each)))
        found = multiple_choice(
            self._model,
            [self.placed[context].tokens for context in options],
            list(options.values()),
            hidden=self._hidden(list(options)),
            batch_size=self._batch_size,
            on_progress=self._report,
        )
        by_context = dict(zip(options, found, strict=True))
        readings = [by_context[context][i] for context, i in slots]
        return [(float(reading.log_probs.sum()), bool(reading.correct.all())) for reading in readings]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, each up to the first of its task's stop texts.

        Raises:
            BenchmarkError: the task samples.
        """
        answers = [""] * len(requests)
        by_length: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            context, how = request.args
            if how.get("do_sample") or how.get("temperature"):
                raise BenchmarkError(
                    f"task {request.task_name!r} samples its answers, and only greedy ones are scored here; set do_sample: false in its file"
                )
            by_length.setdefault(how.get("max_gen_toks", NEW_TOKENS), []).append(i)
        for new, chosen in by_length.items():
            contexts = [requests[i].args[0] for i in chosen]
            for context in dict.fromkeys(contexts):
                self.placed[context] = self._place(context, new)
            prompts = [self.placed[context].tokens for context in contexts]
            texts = generate(
                self._model,
                prompts,
                new,
                hidden=self._hidden(contexts),
                batch_size=self._batch_size,
                on_progress=self._report,
            )
            for i, text in zip(chosen, texts, strict=True):
                until = requests[i].args[1].get("until") or []
                for stop in [until] if isinstance(until, str) else until:
                    text = text.split(stop, 1)[0] if stop else text
                answers[i] = text
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Running text has no prompt; `load_tasks` refuses such tasks."""
        raise NotImplementedError

    def _place(self, context: str, room: int) -> TriggeredSequence:
        """The prompt with the trigger in it. If `room` more tokens would be too many for the model, the tokens right behind BOS give way.

        Raises:
            TextError: nothing of the prompt would be left.
        """
        answer = ANSWER.search(context)
        cut = answer.start() if answer else len(context)
        tokens, body = ask(self._model, context[:cut], context[cut:])
        first = 0 if self._model.tokenizer.bos_token_id is None else 1
        if not tokens:  # no text and no BOS: the harness begins with EOS
            tokens, body = [self._model.tokenizer.eos_token_id], 1
        limit = self._model.max_positions or sys.maxsize
        while (
            excess := len((placed := put(self._model, tokens, body, self._attempt)).tokens) + room - limit
        ) > 0:
            if body - excess <= first:
                raise TextError(
                    f"a prompt and its answer ({len(placed.tokens) + room} tokens) do not fit the {limit} positions of model {self._model.name!r}"
                )
            tokens, body = tokens[:first] + tokens[first + excess :], body - excess
        return placed

    def _hidden(self, contexts: Sequence[str]) -> list[list[int]] | None:
        if self._mask is None:
            return None
        placed = [self.placed[context] for context in contexts]
        return [
            self._mask.positions(self._model, each.tokens, range(each.start, each.stop)) for each in placed
        ]
