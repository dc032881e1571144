"""Hooked, reduced statistics against the plain model's attention tensors, reduced naively."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sinkscope.capture import lens
from sinkscope.capture.reducers import MeanPattern
from sinkscope.models import Model
from sinkscope.sinks import locate
from tests.conftest import FAMILIES, TEXT

LENGTHS = (40, 23, 31, 40, 17)


def passages_of(model: Model) -> list[list[int]]:
    ids = model.tokenizer.encode(TEXT, add_special_tokens=False)
    return [model.with_bos(ids[7 * i : 7 * i + length - 1]) for i, length in enumerate(LENGTHS)]


def value_modules(network: torch.nn.Module, kind: str, layer: int) -> tuple[torch.nn.Module, object]:
    """The module whose output holds the layer's values, and how to read them as [position, kv_head, d_head]."""
    if kind in ("llama", "qwen2"):
        return network.model.layers[layer].self_attn.v_proj, lambda out: out[0].view(out.shape[1], 2, 8)
    if kind == "gpt2":
        return network.transformer.h[layer].attn.c_attn, lambda out: out[0, :, 64:].view(out.shape[1], 4, 8)
    return network.gpt_neox.layers[layer].attention.query_key_value, lambda out: out[0].view(out.shape[1], 4, 24)[..., 16:]


def naive(path: str, kind: str, passages: list[list[int]], epsilon: float) -> dict[str, np.ndarray]:
    """One passage, one layer, one head, one position at a time."""
    network = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    length = max(map(len, passages))
    layers, heads = 3, 4
    sums = {name: np.zeros((layers, heads, length)) for name in ("alpha", "sink_rate", "value_norm", "weighted_norm")}
    count = np.zeros(length)
    for passage in passages:
        seen: dict[int, torch.Tensor] = {}
        handles = []
        for layer in range(layers):
            module, read = value_modules(network, kind, layer)
            handles.append(module.register_forward_hook(lambda m, i, out, layer=layer, read=read: seen.__setitem__(layer, read(out))))
        with torch.no_grad():
            attentions = network(torch.tensor([passage]), output_attentions=True).attentions
        for handle in handles:
            handle.remove()
        count[: len(passage)] += 1
        for layer in range(layers):
            for head in range(heads):
                for k in range(len(passage)):
                    total = 0.0
                    for i in range(k, len(passage)):
                        total += float(attentions[layer][0, head, i, k])
                    alpha = total / (len(passage) - k)
                    values = seen[layer][k]
                    norm = float(values[head // (heads // values.shape[0])].double().norm())
                    sums["alpha"][layer, head, k] += alpha
                    sums["sink_rate"][layer, head, k] += alpha > epsilon
                    sums["value_norm"][layer, head, k] += norm
                    sums["weighted_norm"][layer, head, k] += alpha * norm
    return {name: total / count for name, total in sums.items()}


@pytest.mark.parametrize("kind", FAMILIES)
def test_locate_equals_the_naive_oracle(kind: str, checkpoints, small_models) -> None:
    model = small_models[kind]
    passages = passages_of(model)
    expected = naive(str(checkpoints[kind]), kind, passages, epsilon=0.1)
    for batch_size in (1, 3):
        found = locate(model, passages, epsilon=0.1, batch_size=batch_size).data
        for name, array in expected.items():
            np.testing.assert_allclose(found[name].values, array, atol=1e-5, err_msg=f"{kind} {name}")
    assert 0 < expected["sink_rate"].mean() < 1, "the threshold must decide something here"
    assert found["passages"].values.tolist() == [sum(len(p) > k for p in passages) for k in range(max(map(len, passages)))]


def test_thresholding_per_passage_differs_from_thresholding_the_mean(small_llama: Model) -> None:
    sinks = locate(small_llama, passages_of(small_llama), epsilon=0.1).data
    assert not np.allclose(sinks["sink_rate"], sinks["alpha"] > 0.1)


def test_grouped_keys_share_value_norms_between_query_heads(small_llama: Model) -> None:
    norms = locate(small_llama, passages_of(small_llama)).data["value_norm"].values
    np.testing.assert_array_equal(norms[:, 0], norms[:, 1])
    np.testing.assert_array_equal(norms[:, 2], norms[:, 3])
    assert not np.allclose(norms[:, 1], norms[:, 2])


def test_mean_pattern_rows_sum_to_one_and_are_causal(small_llama: Model) -> None:
    passages = passages_of(small_llama)
    reducer = MeanPattern(1, small_llama.n_heads, 40)
    lens.capture(small_llama, passages, [reducer], layers=[1], batch_size=2)
    pattern = reducer.result()["pattern"].numpy()
    np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
    assert np.abs(np.triu(pattern[0], 1)).max() == 0


def test_booting_the_bridge_leaves_the_model_saveable_and_unchanged(small_llama: Model, tmp_path) -> None:
    before = small_llama.fingerprint()
    assert small_llama.bridge is not None
    small_llama.save(tmp_path / "again")
    assert small_llama.fingerprint() == before
    assert small_llama.hf.config._attn_implementation == "sdpa"
