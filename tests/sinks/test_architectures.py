"""Both backends on every architecture that transformers builds: as eager attention, or refused in a line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BartForCausalLM

from sinkscope.errors import ModelError, TextError
from sinkscope.models.model import Model
from sinkscope.sinks.locate import CaptureConfig, locate
from tests.conftest import saved_tokenizer
from tests.sinks.architectures import (
    EPSILON,
    EQUAL,
    NotBuiltError,
    build,
    examine,
    expected,
    make_config,
    names,
    passages,
    recorded_values,
)

SAMPLE = (
    "llama qwen2_moe qwen3_moe gemma2 olmo olmoe phi3 stablelm starcoder2 cohere2 exaone4 granite gptj "
    "mixtral biogpt bitnet codegen llama4_text gpt_neo deepseek_v3 roberta bert openai-gpt diffllama mamba "
    "mpt inkling_text jamba qwen3_next zamba2 recurrent_gemma lfm2_moe"
).split()
REFUSED = ("openai-gpt", "diffllama", "mamba")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return saved_tokenizer("neox", tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_architectures_is_right_or_refused(name: str, tokenizer) -> None:
    outcomes = examine(name, tokenizer)
    assert outcomes["tiled"] == EQUAL or outcomes["hooks"] == EQUAL or name in REFUSED
    assert not any("\n" in outcome for outcome in outcomes.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(names()) - set(SAMPLE)))
def test_every_other_architecture_is_right_or_refused(name: str, tokenizer) -> None:
    try:
        outcomes = examine(name, tokenizer)
    except NotBuiltError as error:
        pytest.skip(str(error))
    assert not any("\n" in outcome for outcome in outcomes.values())


def test_the_heads_of_an_encoder_decoder_are_those_of_its_decoder(tokenizer) -> None:
    config = make_config("bart")
    config.encoder_attention_heads = 2
    network = BartForCausalLM(config).eval()
    sinks = locate(Model("bart", network, tokenizer), passages()[:1])
    assert sinks.data.sizes["head"] == config.decoder_attention_heads == 4
    np.testing.assert_allclose(sinks.alpha, expected(network, passages()[:1], EPSILON)["alpha"], atol=1e-5)


def test_a_layer_that_attends_twice_is_refused(tokenizer) -> None:
    with pytest.raises(ModelError, match="its layer 0 attends more than once in a pass"):
        locate(Model("diffllama", build("diffllama"), tokenizer), passages())


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "jamba"])  # Qwen3 has a norm on its keys
def test_key_norms_are_those_of_the_keys_that_attention_is_given(name: str, tokenizer) -> None:
    network = build(name)
    found = locate(Model(name, network, tokenizer), passages(), CaptureConfig(statistics=("key_norm",))).data
    network.set_attn_implementation("eager")
    sums, count = 0.0, np.zeros(found.sizes["position"])
    for passage in passages():
        with recorded_values(network, records_keys=True) as keys, torch.no_grad():
            network(torch.tensor([passage]))
        norms = np.full((found.sizes["layer"], 4, found.sizes["position"]), np.nan)
        for layer, key in keys.items():
            by_head = key[0].norm(dim=-1).repeat_interleave(4 // key.shape[1], 0)
            norms[layer, :, : len(passage)] = by_head.numpy()
        count[: len(passage)] += 1
        norms[sorted(keys)] = np.nan_to_num(norms[sorted(keys)])
        sums = sums + norms
    np.testing.assert_allclose(found["key_norm"], sums / count, rtol=1e-5)
    assert found.attrs["backend"] == "tiled"
    with pytest.raises(TextError, match="'key_norm' is not read by `backend` hooks"):
        CaptureConfig(statistics=("key_norm",), backend="hooks")


def test_values_that_change_behind_their_projection_are_read_where_attention_uses_them(tokenizer) -> None:
    network = build("olmo")
    network.config.clip_qkv = 0.3
    model = Model("olmo", network, tokenizer)
    sinks = locate(model, passages())
    assert "tiled (OlmoForCausalLM changes its values after TransformerLens reads them" in sinks.data.backend
    np.testing.assert_allclose(
        sinks.value_norm, expected(network, passages(), EPSILON)["value_norm"], atol=1e-5
    )
    with pytest.raises(
        ModelError, match="changes its values after TransformerLens reads them; try `backend` tiled"
    ):
        locate(model, passages(), CaptureConfig(backend="hooks"))
