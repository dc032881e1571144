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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.hidden_states import layer_outputs
from sinkscope.models.model import Model
from sinkscope.models.padding import PaddedBatch

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
    of the rows (see `Sampling`). `scores` are those before the softmax, which `tiled` gives if a statistic
    asks for them; −∞ where a key is hidden.
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
    scores: Float[Tensor, "head row key"] | None = None


@dataclass(frozen=True)
class ValueBlock:
    """One layer's value vectors on one passage, which come before its attention blocks.

    Query head h reads key-value head h // (n_heads // n_kv_heads). `tiled` gives the key vectors too, as they
    are when queries are multiplied with them.
    """

    layer: int
    passage: int
    value: Float[Tensor, "kv_head position d_value"]
    key: Float[Tensor, "kv_head position d_head"] | None = None


@dataclass(frozen=True)
class ResidualBlock:
    """The residual stream of one passage after one layer, for statistics with `residual = True`."""

    layer: int
    passage: int
    residual: Float[Tensor, "position d_model"]


Block = AttentionBlock | ValueBlock | ResidualBlock

VisibleKeys = Callable[[Int[Tensor, " row"], int], Bool[Tensor, "row key"]]
"""Called with rows and a number of keys: which of these first keys each row may attend to."""
Visibility = dict[int, VisibleKeys | None]
"""By layer that attends; None where a query attends to all positions up to its own."""


class Statistic(Protocol):
    """Takes blocks and keeps sums of them.

    One with `residual = True` is given residual blocks too; one with a method `needs_scores(passage)` says of
    which passages it needs blocks with scores; one with `needs_every_row(passage)`, of which it needs blocks
    of every row, also where the capture samples rows.
    """

    def update(self, block: Block) -> None: ...


def needs_scores(statistics: Sequence[Statistic], passage: int) -> bool:
    """Whether one of the statistics needs the scores before the softmax of a passage."""
    return any(getattr(each, "needs_scores", lambda passage: False)(passage) for each in statistics)


def with_every_row(statistics: Sequence[Statistic], passage: int) -> list[Statistic]:
    """The statistics that need every row of a passage, also where the capture samples rows."""
    return [each for each in statistics if getattr(each, "needs_every_row", lambda passage: False)(passage)]


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
class PatternCheck:
    """Raises ModelError for a block that cannot be part of causal attention: it has NaN, attends to later
    positions, or its rows do not sum to 1 (at most to 1 if the model has learned sinks)."""

    model: Model

    def __call__(self, block: AttentionBlock) -> None:
        pattern, rows = block.pattern, block.rows.to(block.pattern.device)
        tolerance = 1e-3 if self.model.hf.dtype == torch.float32 else 0.05
        start = max(block.keys.start, int(block.rows[0]) + 1)  # no query of the block is before these keys
        keys = torch.arange(start, max(start, block.keys.stop), device=pattern.device)
        later = pattern[..., start - block.keys.start :].masked_fill(keys <= rows[:, None], 0.0)
        sums = pattern.sum(-1)  # NaN or infinite if one of the weights is
        problem = ""
        if not sums.isfinite().all():
            problem = "gives NaN; check its weights, or load it in float32"
        elif later.numel() and later.abs().max() > tolerance:
            problem = "attends to later positions, so it is not causal; give a causal language model"
        elif sums.max() > 1 + tolerance or (not self.model.has_learned_sinks and sums.min() < 1 - tolerance):
            problem = (
                f"has weights that sum to {sums.min():.3g} to {sums.max():.3g}, not to 1; give another model"
            )
        if problem:
            raise ModelError(f"model {self.model.name!r}: the attention of layer {block.layer} {problem}")


@dataclass(frozen=True)
class Recorder:
    """Hands the blocks of a batch to the statistics.

    Attributes:
        passages: the number and length of each passage.
        checks: whether attention is checked before it is handed on (see `check_pattern`).
        longest: the row of the longest passage of the capture, if it is in this batch.
    """

    statistics: Sequence[Statistic]
    passages: Sequence[tuple[int, int]]
    checks: PatternCheck | None = None
    longest: int | None = None

    def update(self, block: Block) -> None:
        if self.checks and isinstance(block, AttentionBlock):
            self.checks(block)
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
    ) -> Visibility:
        """Run the model over `passages` (token ids, BOS first) in order, and update every statistic.

        Gradients and dropout are off; the model is as before afterwards, also after an error. The attention
        of the first batch is checked.

        Returns:
            By layer, which keys the queries can attend to; good for passages up to the longest.

        Raises:
            ModelError: the attention of a layer could not be read, or is no causal attention.
        """
        n_done = 0
        longest = max(range(len(passages)), key=lambda i: len(passages[i]))
        visible: Visibility = {}
        for batch in model.batches(passages, batch_size):
            numbered = [*enumerate(map(len, batch.spans), n_done)]
            row = longest - n_done if longest - n_done in range(len(numbered)) else None
            checks = PatternCheck(model) if n_done == 0 else None
            with torch.no_grad(), model.eval_mode():
                found = self._capture_batch(model, batch, Recorder(statistics, numbered, checks, row))
            if row is not None:
                visible = found
            n_done += len(batch.spans)
            if on_progress:
                on_progress(n_done, len(passages))
        return visible

    def _capture_batch(self, model: Model, batch: PaddedBatch, recorder: Recorder) -> Visibility:
        """The visible keys matter for the batch with the longest passage only."""
        raise NotImplementedError

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:
        """Why this backend does not support the model, or None if it does; runs it on some of `tokens`."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name
