"""Positions of a prompt that later ones cannot attend to: the sink-masking test and its controls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sinkscope.errors import PlacementError
from sinkscope.evaluation.items import TriggerCondition
from sinkscope.models.model import Model
from sinkscope.sinks.locate import locate_passage
from sinkscope.triggers import TriggeredSequence

_PATTERN = re.compile(r"(span)|(shallow|sinks):([1-9]\d{0,5})|(positions):(\d{1,6}(?:,\d{1,6})*)")


@dataclass(frozen=True)
class PositionMask:
    """`shallow:8` (the first eight positions), `sinks:3`, `span` or `positions:4,9`, counted from BOS.

    `sinks:3` are the three strongest sinks of the prompt with its trigger; `span` is the trigger, and nothing
    in a clean prompt.
    """

    kind: Literal["shallow", "sinks", "span", "positions"]
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> PositionMask:
        """Parse a mask as written on the command line and in studies.

        Raises:
            PlacementError: the text has none of the four forms.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise PlacementError(
                f"mask {text[:80]!r} is unknown; use shallow:8, sinks:3, span or positions:4,9"
            )
        kind = match[1] or match[2] or match[4]
        numbers = (match[3] or match[5] or "").split(",")
        return cls(kind, tuple(int(number) for number in numbers if number))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.kind + (":" + ",".join(map(str, self.numbers)) if self.numbers else "")

    def check(self, conditions: Sequence[TriggerCondition]) -> None:
        """Check that there is something to mask under one of `conditions`.

        Raises:
            PlacementError: the mask covers the trigger, and no condition has one.
        """
        if self.kind == "span" and not any(conditions):
            raise PlacementError("`mask` span covers the trigger, and there is none; give `trigger`")

    def positions(self, model: Model, prompt: Sequence[int], span: range) -> list[int]:
        """The masked positions of one prompt with the trigger at `span`.

        Raises:
            PlacementError: a position is outside the prompt.
        """
        if self.kind == "span":
            return list(span)
        if self.kind == "sinks":
            sinks = locate_passage(model, list(prompt))
            return sorted(sinks.strongest(rank) for rank in range(1, self.numbers[0] + 1))
        positions = list(range(self.numbers[0])) if self.kind == "shallow" else sorted(set(self.numbers))
        if positions[-1] >= len(prompt):
            raise PlacementError(f"mask {self} exceeds a prompt of {len(prompt)} tokens; use smaller numbers")
        return positions

    def apply(self, model: Model, prompts: Sequence[TriggeredSequence]) -> list[list[int]]:
        """The masked positions of each prompt (see `positions`)."""
        return [self.positions(model, each.tokens, range(each.start, each.stop)) for each in prompts]
