"""The choice between the backends that capture attention.

`HooksBackend` reads whole layers through TransformerLens hooks, where that takes seconds; `TiledBackend`
reads tiles of a few rows inside transformers' attention interface, for models and texts of any size, and can
read a sample of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

from sinkscope.errors import ModelError
from sinkscope.models.model import Model
from sinkscope.sinks.capture import ALWAYS_SAMPLED, Backend, Sampling
from sinkscope.sinks.hooks import HooksBackend
from sinkscope.sinks.tiled import TiledBackend

BackendName = Literal["hooks", "tiled"]
BACKENDS: dict[BackendName, type[Backend]] = {"hooks": HooksBackend, "tiled": TiledBackend}
_checked: WeakKeyDictionary[Any, dict[Any, str | None]] = WeakKeyDictionary()
"""By network: why backends do not support it."""
MAX_CHECKED = 8
"""Passages among which the longest is the one that a backend is checked on."""
MAX_HOOKS_LENGTH = 1024
"""`hooks` is the default up to this many positions, where the pattern of a whole layer fits into memory."""
MAX_HOOKS_COST = 1e11
"""`hooks` is the default up to this many parameters × tokens, which two cores read in seconds."""


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
        ModelError: the backend `name`, or either of them, does not support this model, or it has no
            attention heads.
    """
    _ = model.n_heads
    if name is not None and name not in BACKENDS:
        raise ModelError(f"`backend` {name!r} is unknown; use {' or '.join(BACKENDS)}")
    if sampling and name == "hooks":
        raise ModelError(
            "`backend` hooks reads every row; leave out `query_fraction`, or use `backend` tiled"
        )
    default, why = _default(model, passages) if sampling is None else ("tiled", "")
    preferred = name or default
    reason = _unsupported_reason(model, preferred, passages)
    if reason is None:
        if sampling is None:
            return BACKENDS[preferred](None, "" if name else why)
        note = _every_row_reason(model, passages)
        return BACKENDS[preferred](None if note else sampling, note)
    other: BackendName = "hooks" if preferred == "tiled" else "tiled"
    other_reason = _unsupported_reason(model, other, passages)
    if other_reason is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured: {reason}, and {other_reason}; "
            "give a model that one of the backends supports"
        )
    if name is not None:
        raise ModelError(
            f"model {model.name!r} cannot be captured with `backend` {name}: {reason}; try `backend` {other}"
        )
    return BACKENDS[other](None, f"{reason}, so every row was read" if sampling else reason)


def _default(model: Model, passages: Sequence[list[int]]) -> tuple[BackendName, str]:
    """The backend that suits the sizes of the model and the passages, and why it is not `hooks`."""
    if max(map(len, passages)) > MAX_HOOKS_LENGTH:
        return "tiled", f"passages have more than {MAX_HOOKS_LENGTH} tokens"
    n_parameters = sum(weight.numel() for weight in model.hf.parameters())
    if n_parameters * sum(map(len, passages)) > MAX_HOOKS_COST:
        return "tiled", "model and text are large"
    return "hooks", ""


def _unsupported_reason(model: Model, name: BackendName, passages: Sequence[list[int]]) -> str | None:
    """Why a backend does not support a model; remembered, as a check runs the model."""
    checked = _checked.setdefault(model.hf, {})
    key = (name, model.hf.dtype, model.hf.device)
    if key not in checked:
        checked[key] = BACKENDS[name].unsupported_reason(model, max(passages[:MAX_CHECKED], key=len))
    return checked[key]


def _every_row_reason(model: Model, passages: Sequence[list[int]]) -> str:
    """Why rows are not sampled, or "" if they are."""
    if not model.hf._supports_sdpa:
        return f"{type(model.hf).__name__} does not attend through sdpa, so every row was read"
    if max(map(len, passages)) <= ALWAYS_SAMPLED:
        return f"no passage has more than {ALWAYS_SAMPLED} tokens, so every row was read"
    return ""
