"""Batched generation against one prompt at a time."""

from __future__ import annotations

import pytest

from sinkscope.models.generation import generate
from sinkscope.models.model import Model
from tests.conftest import FAMILIES, TEXT


@pytest.mark.parametrize("kind", FAMILIES)
def test_batched_generation_equals_one_by_one(kind: str, small_models: dict[str, Model]) -> None:
    model = small_models[kind]
    ids = model.tokenizer.encode(TEXT, add_special_tokens=False)
    prompts = [model.with_bos(ids[i * 5 : i * 5 + length]) for i, length in enumerate((4, 19, 11, 30, 7))]
    together = generate(model, prompts, 12, batch_size=5)
    assert together == [generate(model, [prompt], 12)[0] for prompt in prompts]
    assert together == generate(model, prompts, 12, batch_size=2)
    assert len(set(together)) > 1
