"""The memory of `locate` does not grow with the number of passages, layers or heads."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import TEXT, saved_tokenizer
from tests.guarantees.measured import run_locate
from tests.guarantees.soak_log import attempt
from tests.guarantees.warm import CONTEXT

PASSAGES, SOAK_PASSAGES = 4_000, 100_000
LAYERS, HEADS = 200, 128
GROWTH = 16 << 20
"""Limit on the growth of the peak after a tenth of the passages, in bytes, for any number of them."""
READING = 512
"""Limit for text and tokens of a passage of up to 20 tokens, in bytes, in addition to `GROWTH`."""
OUTPUTS = 160 << 20
"""Limit for tables and figures, in bytes, in addition to `GROWTH`, for any number of passages."""
ROW = 256
"""Limit for a row of the table of sinks, in bytes, in addition to `OUTPUTS`."""


def model(directory: Path, layers: int, heads: int) -> str:
    """A random model with narrow heads."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": max(32, 2 * heads),
        "intermediate_size": 8,
        "num_key_value_heads": 2,
        "vocab_size": 400,
        "max_position_embeddings": 32,
    }
    LlamaForCausalLM(
        LlamaConfig(num_hidden_layers=layers, num_attention_heads=heads, bos_token_id=1, **shape)
    ).save_pretrained(directory)
    saved_tokenizer("llama", directory)
    return str(directory)


def locate_in_process(name: str, passages: int, directory: Path, batch_size: int) -> dict[str, Any]:
    """Run `sinkscope locate` on short texts in a separate process; returns what `run_locate` measures."""
    rng, text = random.Random(0), directory / "texts.jsonl"
    with text.open("w") as file:
        for start in (rng.randrange(len(TEXT) - 100) for _ in range(passages)):
            file.write(json.dumps({"text": TEXT[start : start + 100]}) + "\n")
    arguments = [
        "locate",
        name,
        "--text",
        text,
        "--out",
        directory / "out",
        "--max-length",
        20,
        "--batch-size",
        batch_size,
        "--device",
        "cpu",
    ]
    process = CONTEXT.Process(
        target=run_locate, args=([str(each) for each in arguments], directory / "memory.json")
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    memory = json.loads((directory / "memory.json").read_text())
    assert passages <= memory["passages"] <= 2 * passages
    return memory


@pytest.mark.parametrize("passages", [PASSAGES, pytest.param(SOAK_PASSAGES, marks=pytest.mark.soak)])
def test_very_many_passages(passages: int, tmp_path: Path) -> None:
    with attempt("load", "passages", passages) as tally:
        memory = locate_in_process(model(tmp_path / "model", 1, 2), passages, tmp_path, batch_size=64)
        tally.seen = memory_summary(memory)
        assert memory["growth"] < GROWTH
        assert memory["reading"] < GROWTH + READING * passages
        assert memory["end"] < GROWTH + OUTPUTS


@pytest.mark.parametrize("layers", [LAYERS // 10, pytest.param(LAYERS, marks=pytest.mark.soak)])
def test_very_many_layers_and_heads(layers: int, tmp_path: Path) -> None:
    """The tables have a row for each head, and all figures are plotted."""
    with attempt("size", f"layers of {HEADS} heads", layers) as tally:
        memory = locate_in_process(model(tmp_path / "model", layers, HEADS), 40, tmp_path, batch_size=2)
        tally.seen = memory_summary(memory)
        rows = len(pd.read_parquet(tmp_path / "out" / "sinks.parquet"))
        assert memory["growth"] < GROWTH
        assert memory["end"] < GROWTH + OUTPUTS + ROW * rows
        assert rows == layers * HEADS * 20
        assert len(pd.read_csv(tmp_path / "out" / "figures" / "atlas.csv")) == layers * HEADS
        names = {path.stem for path in (tmp_path / "out" / "figures").glob("*.pdf")}
        maps = {"head_map", "head_map_entropy"}
        assert names == {"atlas", "received_attention", "value_norms", "token_strip"} | maps


def memory_summary(memory: dict[str, int]) -> str:
    reading, growth, end = (f"{memory[key] / 2**20:.1f} MiB" for key in ("reading", "growth", "end"))
    return (
        f"reading takes {reading}; peak up by {growth} after a tenth of the passages, by {end} until the end"
    )
