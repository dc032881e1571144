"""Backends that capture attention, and the choice between them.

`HooksBackend` reads whole layers through TransformerLens hooks, for short passages; `TiledBackend` reads
tiles of a few rows inside transformers' attention interface, for passages of any length, and can read a
sample of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.sinks import hooks, tiled
from sinkscope.sinks.sampling import ALWAYS_SAMPLED, Sampling
from sinkscope.sinks.statistics import Statistic

BackendName = Literal["hooks", "tiled"]
MAX_HOOKS_LENGTH = 1024
"""Up to this many positions the pattern of a whole layer fits into memory, and `hooks` is the default."""


@dataclass(frozen=True)
class Backend:
    """A way to capture attention.

    `note` says why it is not the one requested, or why it does not sample rows.
    """

    name: ClassVar[BackendName]
    sampling: Sampling | None = None
    """Which rows are read; None for all."""
    note: str = ""

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
        """Run the model over `passages` (token ids) and update every statistic, for all layers or some.

        Raises:
            ModelError: the attention of a layer could not be read.
        """
        raise NotImplementedError

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:
        """Why this backend does not support the model, or None if it does; may run it on `tokens`."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


class HooksBackend(Backend):
    """TransformerLens hooks, for the whole pattern of a layer at once."""

    name = "hooks"

    def capture(self, *args: Any, **options: Any) -> None:
        hooks.capture(*args, **options)

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:  # noqa: ARG003
        return hooks.unsupported_reason(model)


class TiledBackend(Backend):
    """Tiles inside transformers' attention interface, of all rows or of a sample."""

    name = "tiled"

    def capture(self, *args: Any, **options: Any) -> None:
        tiled.capture(*args, sampling=self.sampling, **options)

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:
        return tiled.unsupported_reason(model, tokens)


BACKENDS: dict[BackendName, type[Backend]] = {"hooks": HooksBackend, "tiled": TiledBackend}


def choose_backend(
    model: Model,
    passages: Sequence[list[int]],
    name: BackendName | None = None,
    sampling: Sampling | None = None,
) -> Backend:
    """The backend `name`, or by default the one that suits the model and the passages.

    Every row is read, and `note` says why, if rows cannot be sampled: if sdpa cannot compute the model's
    output, if only TransformerLens supports the model, or if no passage has more rows than a sample always
    reads.

    Raises:
        ModelError: the backend `name`, or either of them, does not support this model.
    """
    if name is not None and name not in BACKENDS:
        raise ModelError(f"`backend` {name!r} is unknown; use {' or '.join(BACKENDS)}")
    if sampling and name == "hooks":
        raise ModelError(
            "`backend` hooks reads every row; leave out `query_fraction`, or use `backend` tiled"
        )
    max_length = max(map(len, passages))
    names: list[BackendName] = (
        ["tiled", "hooks"] if sampling or max_length > MAX_HOOKS_LENGTH else [*BACKENDS]
    )
    preferred, other = names if name in (None, names[0]) else reversed(names)
    reason = BACKENDS[preferred].unsupported_reason(model, passages[0])
    if reason is None:
        return (
            TiledBackend(*_check_sampling(model, max_length, sampling)) if sampling else BACKENDS[preferred]()
        )
    if name is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured with `backend` {name}: {reason}; try `backend` {other}"
        )
    other_reason = BACKENDS[other].unsupported_reason(model, passages[0])
    if other_reason is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured: {reason}, and {other_reason}; "
            "give a model that one of the backends supports"
        )
    return BACKENDS[other](None, f"{reason}, so every row was read" if sampling else reason)


def _check_sampling(model: Model, max_length: int, sampling: Sampling) -> tuple[Sampling | None, str]:
    """The sampling, or None and why every row is read instead."""
    reason = tiled.sampling_unsupported_reason(model)
    if reason is None and max_length <= ALWAYS_SAMPLED:
        reason = f"no passage has more than {ALWAYS_SAMPLED} tokens"
    return (sampling, "") if reason is None else (None, f"{reason}, so every row was read")
