"""Small inputs on which a backend is compared with the model before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

from sinkscope.models.model import Model
from sinkscope.models.padding import PaddedBatch

N_PROBE_TOKENS = 24
"""Tokens of the longer of two passages, of which the shorter is padded."""


def make_probe(model: Model, tokens: Sequence[int]) -> PaddedBatch:
    """A batch as captures have them: the first few of `tokens`, and a shorter passage with padding."""
    rows = [list(tokens[:N_PROBE_TOKENS]), list(tokens[: max(1, min(len(tokens), N_PROBE_TOKENS) // 2)])]
    return next(iter(model.batches(rows, batch_size=2)))
