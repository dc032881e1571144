"""Capture: a backend runs a model on passages and hands attention, values and residual stream to statistics.

Positions count from the first token of a passage, so statistics need not know about batches or padding.
`passage` is the number of the passage in the order of the capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sinkscope.io.progress import OnProgress
from sinkscope.models.hidden_states import layer_outputs
from sinkscope.models.model import Model, PaddedBatch

ALWAYS_SAMPLED = 128
"""The first rows of a passage are always read: they are cheap, and α varies most there."""
MIN_SAMPLED_ROWS = 32
"""Rows drawn from the later rows of a passage, at least."""
MIN_EXPECTED_ROWS = 16
"""A passage does not count at positions with fewer drawn rows than this expected at or after them."""


@dataclass(frozen=True)
class AttentionBlock:
    """Some rows of some heads of one layer's attention pattern on one passage, in fp32.

    `heads`, `rows` (queries, ascending) and `keys` give the part of the pattern in the block; outside `keys`
    these rows have no attention. Rows sum to one, or to less if the layer has a learned sink. All blocks of a
    layer on a passage follow each other; `last` marks the last of them. With `is_sample` they have a sample
    of the rows (see `Sampling`).
    """

    layer: int
    passage: int
    length: int
    heads: range
    rows: Int[Tensor, " row"]
    keys: range
    pattern: Float[Tensor, "head row key"]
    last: bool
    is_sample: bool = False


@dataclass(frozen=True)
class ValueBlock:
    """One layer's value vectors on one passage, which come before its attention blocks.

    Query head h reads key-value head h // (n_heads // n_kv_heads).
    """

    layer: int
    passage: int
    value: Float[Tensor, "kv_head position d_head"]


@dataclass(frozen=True)
class ResidualBlock:
    """The residual stream of one passage after one layer, for statistics with `residual = True`."""

    layer: int
    passage: int
    residual: Float[Tensor, "position d_model"]


Block = AttentionBlock | ValueBlock | ResidualBlock


class Statistic(Protocol):
    """Takes blocks and keeps sums of them. One with `residual = True` is given residual blocks too."""

    def update(self, block: Block) -> None: ...


@dataclass(frozen=True)
class Sampling:
    """A fraction of every passage's queries, drawn for each layer by `seed` without replacement.

    Shards that will be added need different seeds.
    """

    fraction: float
    seed: int = 0

    def rows(self, layer: int, passage: int, length: int) -> Int[Tensor, " row"]:
        """The queries that are read of one layer on one passage, ascending."""
        n_later = max(0, length - ALWAYS_SAMPLED)
        rng = np.random.default_rng([self.seed, passage, layer])
        drawn = ALWAYS_SAMPLED + np.sort(rng.choice(n_later, self.n_drawn(length), replace=False))
        return torch.cat([torch.arange(length - n_later), torch.from_numpy(drawn)])

    def n_drawn(self, length: int) -> int:
        """How many of the rows after the first `ALWAYS_SAMPLED` are drawn."""
        n_later = max(0, length - ALWAYS_SAMPLED)
        return min(n_later, max(MIN_SAMPLED_ROWS, round(self.fraction * n_later)))

    def n_estimated(self, length: int) -> int:
        """At how many of its first positions a passage counts: those with enough rows after them."""
        n_later = max(0, length - ALWAYS_SAMPLED)
        n_drawn = self.n_drawn(length)
        if n_drawn == n_later:
            return length
        return max(0, length - int(np.ceil(MIN_EXPECTED_ROWS * n_later / n_drawn)) + 1)


@dataclass(frozen=True)
class Recorder:
    """Hands the blocks of a batch to the statistics; `passages` has the number and length of each passage."""

    statistics: Sequence[Statistic]
    passages: Sequence[tuple[int, int]]

    def update(self, block: Block) -> None:
        for statistic in self.statistics:
            statistic.update(block)

    def residual_blocks(self, layers: Callable[[], Iterable[nn.Module]]) -> AbstractContextManager[None]:
        """Within the context outputs of `layers()` go to the statistics with `residual = True`, if any."""
        receivers = [statistic for statistic in self.statistics if getattr(statistic, "residual", False)]

        def receive(layer: int, output: Tensor) -> None:
            for row, (passage, length) in enumerate(self.passages):
                block = ResidualBlock(layer, passage, output[row, :length])
                for statistic in receivers:
                    statistic.update(block)

        return layer_outputs(layers(), receive) if receivers else nullcontext()


@dataclass(frozen=True)
class Backend:
    """A way to capture attention.

    Attributes:
        sampling: which rows are read; None for all.
        note: why it is not the backend requested, or why it does not sample rows.
    """

    name: ClassVar[str]
    sampling: Sampling | None = None
    note: str = ""

    def capture(
        self,
        model: Model,
        passages: Sequence[list[int]],
        statistics: Sequence[Statistic],
        *,
        batch_size: int = 8,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Run the model over `passages` (token ids, BOS first) in order, and update every statistic.

        Gradients are off; the model is as before afterwards, also after an error.

        Raises:
            ModelError: the attention of a layer could not be read.
        """
        n_done = 0
        for batch in model.batches(passages, batch_size):
            lengths = map(len, batch.spans)
            with torch.no_grad():
                self._capture_batch(model, batch, Recorder(statistics, [*enumerate(lengths, n_done)]))
            n_done += len(batch.spans)
            if on_progress:
                on_progress(n_done, len(passages))

    def _capture_batch(self, model: Model, batch: PaddedBatch, recorder: Recorder) -> None:
        raise NotImplementedError

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:
        """Why this backend does not support the model, or None if it does; may run it on `tokens`."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name
