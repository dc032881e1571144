"""Attention hooks: restored after use, independent between models and threads, nested."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sinkscope.errors import ModelError
from sinkscope.models.attention import (
    attention_hook,
    attention_penalty,
    mask_keys,
    record_values,
    scale_values,
    value_norm_penalty,
)
from sinkscope.models.model import Model
from sinkscope.sinks.statistics import SinkStatistics
from sinkscope.sinks.tiled import TiledBackend
from tests.conftest import saved_tokenizer
from tests.sinks.families import network

TOKENS = torch.randint(3, 400, (2, 30), generator=torch.Generator().manual_seed(1))


class Count:
    """Plain sdpa, counting calls."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self, module, query, key, value, attention_mask, **options):
        self.n_calls += 1
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return saved_tokenizer("neox", tmp_path_factory.mktemp("tokenizer"))


def names() -> set[str]:
    return set(AttentionInterface().valid_keys()) | set(AttentionMaskInterface().valid_keys())


def alpha(model: Model, passages: list[list[int]]) -> torch.Tensor:
    statistic = SinkStatistics(model.n_layers, model.n_heads, max(map(len, passages)), 0.3)
    TiledBackend().capture(model, passages, [statistic], batch_size=2)
    return statistic.result()["alpha"]


def test_a_hook_sees_every_layer_and_leaves_nothing_behind() -> None:
    model, before = network("llama"), names()
    with torch.no_grad():
        expected = model(TOKENS).logits
        hook = Count()
        with attention_hook(model, hook):
            torch.testing.assert_close(model(TOKENS).logits, expected, atol=0, rtol=0)
            assert len(names() - before) == 1
    assert hook.n_calls == 3
    assert names() == before
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError, match="its own"), attention_hook(model, Count()):
        raise RuntimeError("its own")
    assert names() == before
    assert model.config._attn_implementation == "sdpa"


def test_the_inner_of_nested_hooks_is_active_and_the_outer_one_afterwards(tokenizer) -> None:
    model = Model("llama", network("llama"), tokenizer)
    passages = [TOKENS[0].tolist()]
    expected = alpha(model, passages)
    with torch.no_grad():
        with mask_keys(model, [0, 3]):
            masked = model.hf(TOKENS).logits
        with mask_keys(model, [0, 3]):
            hook = Count()
            with attention_hook(model.hf, Count()), attention_hook(model.hf, hook):
                model.hf(TOKENS)
            assert torch.equal(alpha(model, passages), expected), "a capture within reads the plain model"
            with scale_values(model, [1], 0.5):
                assert not torch.equal(model.hf(TOKENS).logits, masked)
            with record_values(model.hf) as values:
                model.hf(TOKENS)
            assert torch.equal(model.hf(TOKENS).logits, masked)
    assert hook.n_calls == 3
    assert set(values) == {0, 1, 2}
    assert model.hf.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kinds", [("llama", "llama"), ("llama", "gpt2"), ("gemma2", "gpt_oss")])
def test_threads_with_a_model_each_do_not_disturb_one_another(kinds: tuple[str, str], tokenizer) -> None:
    """Of one class too, and with different hooks at the same time."""
    models = [Model(kind, network(kind), tokenizer) for kind in kinds]
    passages = [[row.tolist() for row in TOKENS], [TOKENS[0, :21].tolist()]]
    start = threading.Barrier(3)

    def work(model: Model, passages: list[list[int]]) -> list[torch.Tensor]:
        start.wait()
        return [alpha(model, passages) for _ in range(10)]

    def intervene(model: Model) -> list[torch.Tensor]:
        start.wait()
        logits = []
        for _ in range(10):
            with torch.no_grad(), mask_keys(model, [0, 3]):
                logits.append(model.hf(TOKENS).logits)
        return logits

    third = Model(kinds[0], network(kinds[0]), tokenizer)
    expected = [alpha(model, own) for model, own in zip(models, passages, strict=True)]
    with torch.no_grad(), mask_keys(third, [0, 3]):
        expected.append(third.hf(TOKENS).logits)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(work, model, own) for model, own in zip(models, passages, strict=True)]
        futures.append(pool.submit(intervene, third))
        for future, literal in zip(futures, expected, strict=True):
            assert all(torch.equal(each.nan_to_num(7), literal.nan_to_num(7)) for each in future.result())


def test_two_threads_on_one_model_are_an_error(tokenizer) -> None:
    model = Model("llama", network("llama"), tokenizer)
    with attention_hook(model.hf, Count()), ThreadPoolExecutor(1) as pool:
        with pytest.raises(ModelError, match="hooked in another thread; load one model per thread"):
            pool.submit(alpha, model, [TOKENS[0].tolist()]).result()
        alpha(model, [TOKENS[0].tolist()])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(alpha, model, [TOKENS[0].tolist()]).result()


@pytest.mark.parametrize("is_masked", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(is_masked: bool, tokenizer) -> None:
    """Layers attend a second time in the backward pass, within the context."""

    def gradient(has_checkpointing: bool) -> torch.Tensor:
        model = Model("llama", network("llama").train(), tokenizer)
        if has_checkpointing:
            model.hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if is_masked:
            with mask_keys(model, [0, 3]):
                model.hf(TOKENS, use_cache=False).logits.logsumexp(-1).mean().backward()
        else:
            with record_values(model.hf, [0, 2]) as values:
                model.hf(TOKENS, use_cache=False)
                torch.stack([each.norm(dim=-1).mean() for each in values.values()]).sum().backward()
        parameters = [each for each in model.hf.parameters() if each.grad is not None]
        assert len(parameters) > 20
        return torch.cat([each.grad.flatten() for each in parameters])

    assert torch.equal(gradient(True), gradient(False))


def test_a_model_outside_the_interface_is_refused() -> None:
    with (
        pytest.raises(ModelError, match="BloomForCausalLM does not attend through"),
        record_values(network("bloom")),
    ):
        pass
    with attention_penalty(network("gpt2"), value_norm_penalty) as penalties:
        pass
    assert penalties == []
