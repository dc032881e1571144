"""Exact attention in tiles of a few heads and query rows: no memory of the size positions x positions.

Every tile of the pattern is computed once, for the layer's output and for the caller. Keys of grouped heads
are not repeated, and a passage comes without its padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sinkscope.errors import ModelError

TILE_SIZE = 1 << 21
"""Numbers in a tile: 8 MiB in fp32. Larger tiles are faster until they exceed the last level of cache."""
MAX_ROWS = 128
"""Query rows of a tile at most."""


@dataclass(frozen=True)
class MaskRule:
    """transformers' mask function (batch, head, query, key) -> bool, and sdpa's mask where that is needed.

    Both are None for plain causality.
    """

    allowed: Callable[..., Tensor] | None
    matrix: Tensor | None = None


@dataclass(frozen=True)
class Scoring:
    """How a layer turns queries and keys into its pattern: options of transformers' attention functions."""

    rule: MaskRule
    scaling: float | None = None
    softcap: float | None = None
    learned_sink: Float[Tensor, " head"] | None = None
    position_bias: Float[Tensor, "batch head query key"] | None = None
    """Added to the scores."""


@dataclass(frozen=True)
class Tile:
    """Rows of one passage's attention pattern, 0 outside `keys`. The next tile reuses the memory.

    `scores` are those before the softmax, if they are kept; −∞ where a key is hidden.
    """

    heads: range
    rows: Int[Tensor, " row"]
    keys: range
    pattern: Float[Tensor, "head row key"]
    is_last: bool
    scores: Float[Tensor, "head row key"] | None = None


@dataclass
class PassageAttention:
    """One layer's attention, in fp32, on the passage that begins at column `start` of a batch's row `row`.

    `output` is filled in where it is given. With `keep_scores` tiles have scores.
    """

    query: Float[Tensor, "head position d_head"]
    key: Float[Tensor, "kv_head position d_head"]
    value: Float[Tensor, "kv_head position d_head"]
    scoring: Scoring
    row: int = 0
    start: int = 0
    output: Float[Tensor, "head position d_head"] | None = None
    keep_scores: bool = False

    def tiles(self, rows: Int[Tensor, " row"] | None = None) -> Iterator[Tile]:
        """The pattern of all query rows, or of the ascending `rows`, as tiles: by row, then by head.

        Raises:
            ModelError: a query attends to a later position.
        """
        n_heads, length, d_head = self.query.shape
        n_kv = len(self.key)
        group = n_heads // n_kv
        has_sink = self.scoring.learned_sink is not None
        scaling = d_head**-0.5 if self.scoring.scaling is None else self.scoring.scaling
        tile_size = TILE_SIZE if rows is None else TILE_SIZE // 4  # as fast where no output is made
        n_rows = max(1, min(MAX_ROWS, length, tile_size // (group * length)))
        memory = torch.empty(max(tile_size, group * n_rows * (length + has_sink)), device=self.query.device)
        keys_transposed = self.key.mT.contiguous()  # faster to multiply with than a transposed view
        chunks = (torch.arange(length) if rows is None else rows).split(n_rows)
        for chunk in chunks:
            keys, hidden = self._visible_keys(chunk)
            width = len(keys) + has_sink
            step = max(1, min(n_kv, tile_size // (group * n_rows * width)))
            for start in range(0, n_kv, step):
                stop = min(start + step, n_kv)
                heads = range(start * group, stop * group)
                query = self.query[heads.start : heads.stop, chunk.to(self.query.device)]
                query = query.view(stop - start, -1, d_head) * scaling
                key = keys_transposed[start:stop, :, keys.start : keys.stop]
                scores = memory[: len(heads) * len(chunk) * width].view(stop - start, -1, width)
                bias = self._position_bias(heads, chunk, keys)
                self._score(scores, query, key, bias, hidden, heads)
                by_head = scores.view(len(heads), len(chunk), width)[..., : len(keys)]
                kept = by_head.clone() if self.keep_scores else None
                torch.softmax(scores, -1, out=scores)
                if self.output is not None:
                    values = self.value[start:stop, keys.start : keys.stop]
                    attended = torch.bmm(scores[..., : len(keys)], values)
                    attended = attended.view(len(heads), len(chunk), -1)
                    self.output[heads.start : heads.stop, chunk[0] : chunk[-1] + 1] = attended
                yield Tile(heads, chunk, keys, by_head, chunk is chunks[-1] and stop == n_kv, kept)

    def _score(
        self,
        scores: Float[Tensor, "kv_head group*row width"],
        query: Float[Tensor, "kv_head group*row d_head"],
        key: Float[Tensor, "kv_head d_head key"],
        bias: Float[Tensor, "head row key"] | None,
        hidden: Bool[Tensor, "row key"],
        heads: range,
    ) -> None:
        """Fill `scores`; a learned sink takes the last column."""
        n_keys = key.shape[-1]
        torch.bmm(query, key, out=scores[..., :n_keys])
        if self.scoring.softcap is not None:
            scores.div_(self.scoring.softcap).tanh_().mul_(self.scoring.softcap)
        by_head = scores.view(len(heads), len(hidden), -1)
        if bias is not None:
            by_head[..., :n_keys].add_(bias)
        by_head[..., n_keys - hidden.shape[-1] : n_keys].masked_fill_(hidden, float("-inf"))
        if self.scoring.learned_sink is not None:
            by_head[..., -1] = self.scoring.learned_sink[heads.start : heads.stop, None].float()

    def _position_bias(
        self, heads: range, rows: Int[Tensor, " row"], keys: range
    ) -> Float[Tensor, "head row key"] | None:
        bias = self.scoring.position_bias
        if bias is None:
            return None
        queries = (rows + self.start).to(bias.device)
        columns = slice(self.start + keys.start, self.start + keys.stop)
        return bias[self.row, heads.start : heads.stop, queries, columns].float()

    def _visible_keys(self, rows: Int[Tensor, " row"]) -> tuple[range, Bool[Tensor, "row key"]]:
        """The keys that some of `rows` attend to, and which of the last of them are hidden from each row."""
        first, last = int(rows[0]), int(rows[-1])
        device = self.query.device
        if self.scoring.rule.allowed is None:
            return range(last + 1), (torch.arange(first + 1, last + 1) > rows[:, None]).to(device)
        query = (rows + self.start).to(device)[:, None]
        key = torch.arange(self.start, self.start + self.key.shape[1], device=device)[None, :]
        batch, head = torch.tensor([[self.row], [0]], device=device)
        allowed = self.scoring.rule.allowed(batch, head, query, key).expand(len(rows), key.shape[1])
        visible = allowed.any(0).nonzero()
        keys = range(int(visible.min()), int(visible.max()) + 1)
        if keys.stop > last + 1:
            raise ModelError("its attention looks ahead")
        return keys, ~allowed[:, keys.start : keys.stop]
