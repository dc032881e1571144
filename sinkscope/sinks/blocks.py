"""What a source of blocks hands to the statistics: a part of one passage's attention in one layer at a time, never a whole tensor over layers.

Positions count from the passage's first real token, so that neither statistics nor what they report know of batches and padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class AttentionBlock:
    """Some rows of some heads of one layer's attention pattern on one passage, in fp32.

    `passage` is its number in the order of the capture. `heads`, `rows` (queries) and `keys` say which part of the pattern is held; outside
    `keys` these rows attend to nothing. Rows sum to one, or to less where the layer has a learned sink. A layer's blocks of a passage come
    one after the other; `last` marks the last.
    """

    layer: int
    passage: int
    length: int
    heads: range
    rows: range
    keys: range
    pattern: Float[Tensor, "head row key"]
    last: bool


@dataclass(frozen=True)
class SampledBlock:
    """Like an attention block, of `rows` that ascend but leave some out: the first are all there, the others are drawn by chance (see `sampling`)."""

    layer: int
    passage: int
    length: int
    heads: range
    rows: Int[Tensor, " row"]
    keys: range
    pattern: Float[Tensor, "head row key"]
    last: bool


@dataclass(frozen=True)
class ValueBlock:
    """One layer's value vectors on one passage, ungrouped: query head h reads key-value head h // (n_heads // n_kv). Comes before its attention blocks."""

    layer: int
    passage: int
    value: Float[Tensor, "kv_head position d_head"]


@dataclass(frozen=True)
class ResidualBlock:
    """The residual stream of one passage after one layer, for statistics that ask for it (`residual = True`)."""

    layer: int
    passage: int
    residual: Float[Tensor, "position d_model"]
