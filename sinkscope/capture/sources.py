"""Which source serves a capture: TransformerLens hooks for short passages, tiles for long ones, or the one that knows the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from sinkscope.capture import lens, stream
from sinkscope.capture.reducers import Reducer
from sinkscope.errors import ModelError
from sinkscope.models import Model
from sinkscope.progress import Report

Source = Literal["lens", "stream"]
SOURCES: tuple[Source, ...] = get_args(Source)
LENS_LENGTH = 1024
"""Up to this many positions whole layers of attention are no burden, and TransformerLens goes first."""


def capture(
    model: Model,
    passages: Sequence[list[int]],
    reducers: Sequence[Reducer],
    *,
    source: Source | None = None,
    batch_size: int = 8,
    layers: Sequence[int] | None = None,
    report: Report | None = None,
) -> str:
    """Feed every reducer from `source`, or from the one that suits the model and the passages; returns which, and why if it was not the first choice.

    Raises:
        ModelError: the source asked for, or either of them, cannot serve this model.
    """
    chosen, note = choose(model, passages, source)
    (lens if chosen == "lens" else stream).capture(model, passages, reducers, batch_size=batch_size, layers=layers, report=report)
    return chosen + note


def choose(model: Model, passages: Sequence[list[int]], asked: Source | None = None) -> tuple[Source, str]:
    """The source, and a note if it stands in for the one that would suit these lengths."""
    if asked is not None and asked not in SOURCES:
        raise ModelError(f"source {asked!r} is unknown; use {' or '.join(SOURCES)}")
    refusals = {"lens": lens.why_not, "stream": lambda model: stream.why_not(model, passages[0])}
    first: Source = asked or ("lens" if max(map(len, passages)) <= LENS_LENGTH else "stream")
    refusal = refusals[first](model)
    if refusal is None:
        return first, ""
    second: Source = "stream" if first == "lens" else "lens"
    if asked is not None:
        raise ModelError(f"model {model.name!r} cannot be captured with --source {asked}: {refusal}; try --source {second}")
    other = refusals[second](model)
    if other is not None:
        raise ModelError(f"model {model.name!r} cannot be captured: {refusal}, and {other}; give a model whose attention either can follow")
    return second, f" ({refusal})"
