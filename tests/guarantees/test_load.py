"""Very many passages, and a very large model in layers and heads: sinks are located in memory that does not grow on the way."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import TEXT, saved_tokenizer
from tests.guarantees.measured import locating
from tests.guarantees.soak_log import record
from tests.guarantees.warm import CONTEXT

PASSAGES, SOAK_PASSAGES = 4_000, 100_000
LAYERS, HEADS = 200, 128
GROWTH = 16 << 20
"""Bytes that the peak may still rise after a tenth of the passages, however many they are."""
READING = 512
"""Bytes that a passage of up to 20 tokens may take, text and tokens, besides `GROWTH`."""


def model(directory: Path, layers: int, heads: int) -> str:
    """Random, its heads narrow."""
    torch.manual_seed(0)
    shape = {"hidden_size": max(32, 2 * heads), "intermediate_size": 8, "num_key_value_heads": 2, "vocab_size": 400, "max_position_embeddings": 32}
    LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, num_attention_heads=heads, bos_token_id=1, **shape)).save_pretrained(directory)
    saved_tokenizer("llama", directory)
    return str(directory)


def located(name: str, passages: int, at: Path, batch_size: int) -> dict[str, Any]:
    """Locate in a jsonl file of so many short texts, in a process of its own; see `locating` for what it tells."""
    rng, text = random.Random(0), at / "texts.jsonl"
    with text.open("w") as file:
        for start in (rng.randrange(len(TEXT) - 100) for _ in range(passages)):
            file.write(json.dumps({"text": TEXT[start : start + 100]}) + "\n")
    process = CONTEXT.Process(target=locating, args=(name, text, at / "out", at / "told.json", 20, batch_size))
    process.start()
    process.join()
    assert process.exitcode == 0
    found = json.loads((at / "told.json").read_text())
    assert passages <= found["passages"] <= 2 * passages
    return found


@pytest.mark.parametrize("passages", [PASSAGES, pytest.param(SOAK_PASSAGES, marks=pytest.mark.soak)])
def test_very_many_passages(passages: int, tmp_path: Path) -> None:
    begun = time.monotonic()
    found = located(model(tmp_path / "model", 1, 2), passages, tmp_path, batch_size=64)
    assert found["growth"] < GROWTH
    assert found["reading"] < GROWTH + READING * passages
    record("load", f"passages, peak up by {found['growth'] >> 10} KiB, reading {found['reading'] >> 10} KiB", passages, 0, time.monotonic() - begun)


@pytest.mark.parametrize("layers", [LAYERS // 10, pytest.param(LAYERS, marks=pytest.mark.soak)])
def test_very_many_layers_and_heads(layers: int, tmp_path: Path) -> None:
    """Tables have a row for each, and pictures are drawn all the same."""
    begun = time.monotonic()
    found = located(model(tmp_path / "model", layers, HEADS), 40, tmp_path, batch_size=2)
    assert found["growth"] < GROWTH
    assert len(pd.read_parquet(tmp_path / "out" / "sinks.parquet")) == layers * HEADS * 20
    assert len(pd.read_csv(tmp_path / "out" / "figures" / "atlas.csv")) == layers * HEADS
    assert {path.stem for path in (tmp_path / "out" / "figures").glob("*.pdf")} == {"atlas", "received_attention", "value_norms", "head_map", "token_strip"}
    record("load", f"layers x {HEADS} heads, peak up by {found['growth'] >> 10} KiB", layers, 0, time.monotonic() - begun)
