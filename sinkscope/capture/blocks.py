"""What a source of blocks hands to the reducers: never a whole tensor over layers, only one layer's rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class AttentionBlock:
    """Some query rows of one layer's attention pattern, in fp32.

    `rows` are the query positions held; a layer's blocks come in ascending order and the last one ends at the number of positions.
    `mask` marks real tokens; rows and columns of padding carry no meaning.
    """

    layer: int
    rows: range
    pattern: Float[Tensor, "batch head row key"]
    mask: Bool[Tensor, "batch position"]


@dataclass(frozen=True)
class ValueBlock:
    """One layer's value vectors, ungrouped: query head h reads key-value head h // (n_heads // n_kv). Comes before the layer's attention blocks."""

    layer: int
    value: Float[Tensor, "batch kv_head position d_head"]
    mask: Bool[Tensor, "batch position"]
