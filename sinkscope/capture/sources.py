"""Which source serves a capture: TransformerLens hooks for short passages, tiles for long ones, or the one that knows the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sinkscope.capture import lens, stream
from sinkscope.capture.reducers import Reducer
from sinkscope.capture.sampling import CERTAIN, Sampling
from sinkscope.errors import ModelError
from sinkscope.models import Model
from sinkscope.progress import Report

Source = Literal["lens", "stream"]
SOURCES: tuple[Source, ...] = get_args(Source)
LENS_LENGTH = 1024
"""Up to this many positions whole layers of attention are no burden, and TransformerLens goes first."""


@dataclass(frozen=True)
class Choice:
    """The source; how it samples rows, if it does; and a note where that is not what was asked for or would suit these lengths."""

    source: Source
    sampling: Sampling | None = None
    note: str = ""

    def __str__(self) -> str:
        return f"{self.source} ({self.note})" if self.note else self.source

    def capture(
        self,
        model: Model,
        passages: Sequence[list[int]],
        reducers: Sequence[Reducer],
        *,
        batch_size: int = 8,
        layers: Sequence[int] | None = None,
        report: Report | None = None,
    ) -> None:
        """Feed every reducer from this source."""
        if self.source == "lens":
            lens.capture(model, passages, reducers, batch_size=batch_size, layers=layers, report=report)
        else:
            stream.capture(model, passages, reducers, batch_size=batch_size, layers=layers, sampling=self.sampling, report=report)


def choose(model: Model, passages: Sequence[list[int]], asked: Source | None = None, sampling: Sampling | None = None) -> Choice:
    """The source asked for, or the one that suits the model and the passages.

    Where rows cannot be sampled, because sdpa cannot make the model's output, only TransformerLens can follow it or the passages have no more rows than a
    sample always takes, every row is read and the note says so.

    Raises:
        ModelError: the source asked for, or either of them, cannot serve this model.
    """
    if asked is not None and asked not in SOURCES:
        raise ModelError(f"source {asked!r} is unknown; use {' or '.join(SOURCES)}")
    if sampling and asked == "lens":
        raise ModelError("--source lens reads every row; leave out --rows, or use --source stream")
    refusals = {"lens": lens.why_not, "stream": lambda model: stream.why_not(model, passages[0])}
    short = max(map(len, passages)) <= LENS_LENGTH
    first: Source = asked or ("lens" if short and not sampling else "stream")
    refusal = refusals[first](model)
    if refusal is None:
        unsampled = None
        if sampling:
            unsampled = stream.why_not_sampled(model) or (f"no passage has more than {CERTAIN} tokens" if max(map(len, passages)) <= CERTAIN else None)
        return Choice(first, None, f"{unsampled}, so every row was read") if unsampled else Choice(first, sampling)
    second: Source = "stream" if first == "lens" else "lens"
    if asked is not None:
        raise ModelError(f"model {model.name!r} cannot be captured with --source {asked}: {refusal}; try --source {second}")
    other = refusals[second](model)
    if other is not None:
        raise ModelError(f"model {model.name!r} cannot be captured: {refusal}, and {other}; give a model whose attention either can follow")
    return Choice(second, None, refusal + (", so every row was read" if sampling else ""))
