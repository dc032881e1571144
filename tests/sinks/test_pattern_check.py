"""Whole patterns and parts of them are refused where they cannot be part of causal attention."""

from __future__ import annotations

import pytest
import torch

from sinkscope.errors import ModelError
from sinkscope.models.model import Model
from sinkscope.sinks.capture import AttentionBlock, PatternCheck

LENGTH = 8
PARTS = {"whole": (range(LENGTH), range(LENGTH)), "last rows": (range(5, LENGTH), range(2, LENGTH))}


def block_of(pattern: torch.Tensor, part: str) -> AttentionBlock:
    rows, keys = PARTS[part]
    cells = pattern[:, rows.start : rows.stop, keys.start : keys.stop]
    return AttentionBlock(1, 0, LENGTH, range(2), torch.tensor([*rows]), keys, cells, True)


def causal(part: str) -> torch.Tensor:
    """Attention to the keys of the part, that rows can see, in equal shares."""
    _, keys = PARTS[part]
    pattern = torch.ones(2, LENGTH, LENGTH).tril()
    pattern[..., : keys.start] = 0
    return (pattern / pattern.sum(-1, keepdim=True)).nan_to_num()


@pytest.mark.parametrize("part", PARTS)
def test_what_cannot_be_causal_attention_is_refused(part: str, small_llama: Model) -> None:
    check = PatternCheck(small_llama)
    check(block_of(causal(part), part))
    rows, keys = PARTS[part]
    row = rows.stop - 2
    for later in range(row + 1, keys.stop):
        ahead = causal(part)
        ahead[1, row, row] -= 0.05
        ahead[1, row, later] += 0.05
        with pytest.raises(ModelError, match="attention of layer 1 attends to later positions"):
            check(block_of(ahead, part))
    for value, message in (
        (float("nan"), "gives NaN"),
        (float("inf"), "gives NaN"),
        (0.9, "has weights that sum"),
    ):
        wrong = causal(part)
        wrong[0, row, keys.start] = value
        with pytest.raises(ModelError, match=message):
            check(block_of(wrong, part))


def test_a_first_row_has_no_later_keys_in_its_block(small_llama: Model) -> None:
    block = AttentionBlock(0, 0, LENGTH, range(1), torch.tensor([0]), range(1), torch.ones(1, 1, 1), True)
    PatternCheck(small_llama)(block)
