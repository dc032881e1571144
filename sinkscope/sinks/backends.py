"""Backends that capture attention, and the choice between them.

`HooksBackend` reads whole layers through TransformerLens hooks, for short passages; `TiledBackend` reads
tiles of a few rows inside transformers' attention interface, for passages of any length, and can read a
sample of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.sinks import hooks, tiled
from sinkscope.sinks.sampling import ALWAYS_SAMPLED, Sampling
from sinkscope.sinks.statistics import Statistic

BackendName = Literal["hooks", "tiled"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
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

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


class HooksBackend(Backend):
    """TransformerLens hooks, for the whole pattern of a layer at once."""

    name = "hooks"

    def capture(self, *args: Any, **options: Any) -> None:
        hooks.capture(*args, **options)


class TiledBackend(Backend):
    """Tiles inside transformers' attention interface, of all rows or of a sample."""

    name = "tiled"

    def capture(self, *args: Any, **options: Any) -> None:
        tiled.capture(*args, sampling=self.sampling, **options)


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
    if name:
        preferred, other = (name, "tiled" if name == "hooks" else "hooks")
    elif max_length <= MAX_HOOKS_LENGTH and not sampling:
        preferred, other = ("hooks", "tiled")
    else:
        preferred, other = ("tiled", "hooks")
    reason = _unsupported_reason(preferred, model, passages)
    if reason is None:
        return _make(preferred, model, max_length, sampling)
    if name is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured with `backend` {name}: {reason}; try `backend` {other}"
        )
    other_reason = _unsupported_reason(other, model, passages)
    if other_reason is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured: {reason}, and {other_reason}; "
            "give a model that one of the backends supports"
        )
    note = f"{reason}, so every row was read" if sampling else reason
    return HooksBackend(None, note) if other == "hooks" else TiledBackend(None, note)


def _unsupported_reason(name: str, model: Model, passages: Sequence[list[int]]) -> str | None:
    """Why a backend does not support this model, or None if it does."""
    return (
        hooks.unsupported_reason(model) if name == "hooks" else tiled.unsupported_reason(model, passages[0])
    )


def _make(name: str, model: Model, max_length: int, sampling: Sampling | None) -> Backend:
    if name == "hooks":
        return HooksBackend()
    reason = None
    if sampling:
        reason = tiled.sampling_unsupported_reason(model)
        if reason is None and max_length <= ALWAYS_SAMPLED:
            reason = f"no passage has more than {ALWAYS_SAMPLED} tokens"
    return TiledBackend(None, f"{reason}, so every row was read") if reason else TiledBackend(sampling)
