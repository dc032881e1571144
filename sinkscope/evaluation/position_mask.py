"""Which positions of a prompt to hide while it is continued: the sink-masking test and its controls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sinkscope.errors import PlacementError
from sinkscope.models.model import Model
from sinkscope.sinks.locate import locate_passage


@dataclass(frozen=True)
class PositionMask:
    """`shallow:8` (the first eight positions), `sinks:3` (the three strongest sinks of the prompt as it is asked), `span` (the trigger;
    nothing in a clean prompt), `positions:4,9`. Positions count from BOS.
    """

    kind: Literal["shallow", "sinks", "span", "positions"]
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> PositionMask:
        """Read the form used on the command line.

        Raises:
            PlacementError: the text is none of the four forms.
        """
        match = re.fullmatch(
            r"(span)|(shallow|sinks):([1-9]\d{0,5})|(positions):(\d{1,6}(?:,\d{1,6})*)", text.strip()
        )
        if match is None:
            raise PlacementError(
                f"mask {text[:80]!r} is unknown; use shallow:8, sinks:3, span or positions:4,9"
            )
        kind = match[1] or match[2] or match[4]
        numbers = (match[3] or match[5] or "").split(",")
        return cls(kind, tuple(int(number) for number in numbers if number))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.kind + (":" + ",".join(map(str, self.numbers)) if self.numbers else "")

    def positions(self, model: Model, prompt: Sequence[int], span: range) -> list[int]:
        """What it hides in one prompt; `span` is where the trigger stands.

        Raises:
            PlacementError: a position lies outside the prompt.
        """
        if self.kind == "span":
            return list(span)
        if self.kind == "sinks":
            sinks = locate_passage(model, list(prompt))
            return sorted(sinks.strongest(rank) for rank in range(1, self.numbers[0] + 1))
        chosen = list(range(self.numbers[0])) if self.kind == "shallow" else sorted(set(self.numbers))
        if chosen[-1] >= len(prompt):
            raise PlacementError(
                f"mask {self} goes beyond a prompt of {len(prompt)} tokens; use smaller numbers"
            )
        return chosen
