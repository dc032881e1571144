"""Which source serves a capture: TransformerLens hooks for short passages, tiles for long ones, or the one that knows the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.sinks import hooks as lens
from sinkscope.sinks import tiled as stream
from sinkscope.sinks.sampling import ALWAYS_SAMPLED, Sampling
from sinkscope.sinks.statistics import Statistic

Backend = Literal["hooks", "tiled"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
MAX_HOOKS_LENGTH = 1024
"""Up to this many positions whole layers of attention are no burden, and TransformerLens goes first."""


@dataclass(frozen=True)
class Choice:
    """The source; how it samples rows, if it does; and a note where that is not what was asked for or would suit these lengths."""

    source: Backend
    sampling: Sampling | None = None
    note: str = ""

    def __str__(self) -> str:
        return f"{self.source} ({self.note})" if self.note else self.source

    def capture(
        self,
        model: Model,
        passages: Sequence[list[int]],
        statistics: Sequence[Statistic],
        *,
        batch_size: int = 8,
        layers: Sequence[int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Feed every statistic from this source."""
        if self.source == "hooks":
            lens.capture(
                model, passages, statistics, batch_size=batch_size, layers=layers, on_progress=on_progress
            )
        else:
            stream.capture(
                model,
                passages,
                statistics,
                batch_size=batch_size,
                layers=layers,
                sampling=self.sampling,
                on_progress=on_progress,
            )


def choose_backend(
    model: Model,
    passages: Sequence[list[int]],
    asked: Backend | None = None,
    sampling: Sampling | None = None,
) -> Choice:
    """The source asked for, or the one that suits the model and the passages.

    Where rows cannot be sampled, because sdpa cannot make the model's output, only TransformerLens can follow it or the passages have no more rows than a
    sample always takes, every row is read and the note says so.

    Raises:
        ModelError: the source asked for, or either of them, cannot serve this model.
    """
    if asked is not None and asked not in BACKENDS:
        raise ModelError(f"source {asked!r} is unknown; use {' or '.join(BACKENDS)}")
    if sampling and asked == "hooks":
        raise ModelError(
            "`backend` hooks reads every row; leave out `query_fraction`, or use `backend` tiled"
        )
    refusals = {
        "hooks": lens.unsupported_reason,
        "tiled": lambda model: stream.unsupported_reason(model, passages[0]),
    }
    short = max(map(len, passages)) <= MAX_HOOKS_LENGTH
    first: Backend = asked or ("hooks" if short and not sampling else "tiled")
    refusal = refusals[first](model)
    if refusal is None:
        unsampled = None
        if sampling:
            unsampled = stream.sampling_unsupported_reason(model) or (
                f"no passage has more than {ALWAYS_SAMPLED} tokens"
                if max(map(len, passages)) <= ALWAYS_SAMPLED
                else None
            )
        return (
            Choice(first, None, f"{unsampled}, so every row was read")
            if unsampled
            else Choice(first, sampling)
        )
    second: Backend = "tiled" if first == "hooks" else "hooks"
    if asked is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured with `backend` {asked}: {refusal}; try `backend` {second}"
        )
    other = refusals[second](model)
    if other is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured: {refusal}, and {other}; give a model whose attention either can follow"
        )
    return Choice(second, None, refusal + (", so every row was read" if sampling else ""))
