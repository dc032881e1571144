"""What a backend hands to the statistics: attention, values or residual stream of a layer on a passage.

Positions count from the first real token of a passage, so statistics need not know about batches or padding.
`passage` is the number of the passage in the order of the capture.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class AttentionBlock:
    """Some rows of some heads of one layer's attention pattern on one passage, in fp32.

    `heads`, `rows` (queries) and `keys` give the part of the pattern in the block; outside `keys` these rows
    have no attention. Rows sum to one, or to less if the layer has a learned sink. All blocks of a layer on a
    passage follow each other; `last` marks the last of them.
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
    """An attention block of a sample of rows, ascending: the first rows, and later ones drawn at random.

    See `sampling.Sampling` for which rows are drawn.
    """

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
