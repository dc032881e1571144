"""Both backends, every statistic, many families, against an oracle on the plain model's tensors."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from sinkscope.errors import ModelError
from sinkscope.models import attention_tiles
from sinkscope.models.model import Model
from sinkscope.sinks import backends
from sinkscope.sinks.capture import Backend
from sinkscope.sinks.hooks import HooksBackend
from sinkscope.sinks.statistics import (
    QUERY_STATISTICS,
    BinnedPattern,
    QueryStatistic,
    SinkStatistics,
    SpanMass,
)
from sinkscope.sinks.tiled import TiledBackend
from tests.conftest import saved_tokenizer
from tests.sinks.families import CONFIGS, TILED, naive, network

LENGTHS = (40, 23, 31, 17)
EPSILON = 0.1
SPANS = [range(2, 5), range(1, 3), range(10, 22), range(4, 17)]  # no query comes after the last one


@cache
def passages() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 400, (length,), generator=generator).tolist() for length in LENGTHS]


@cache
def expected(kind: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    plain = network(kind).to(dtype)
    span_mass = np.zeros((3, 4))
    for passage, span in zip(passages()[:3], SPANS, strict=False):
        pattern = naive(plain, kind, [passage], EPSILON)["pattern"]
        span_mass += (
            sum(pattern[:, :, query, key] for query in range(span.stop, len(passage)) for key in span)
            / (len(passage) - span.stop)
            / 3
        )
    return naive(plain, kind, passages(), EPSILON) | {"span_mass": span_mass}


def captured(backend: type[Backend], model: Model, **options: object) -> dict[str, np.ndarray]:
    shape = (model.n_layers, model.n_heads, max(LENGTHS))
    maps = BinnedPattern(
        [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)], max(LENGTHS), 1
    )
    rows = [QueryStatistic(name, shape) for name in QUERY_STATISTICS]
    mass = SinkStatistics(*shape, EPSILON)
    span_mass = SpanMass(model.n_layers, model.n_heads, SPANS)
    backend().capture(model, passages(), [mass, *rows, maps, span_mass], **options)
    measured = {name: values for statistic in (mass, *rows) for name, values in statistic.result().items()}
    measured["span_mass"] = span_mass.result()["span_mass"]
    measured["pattern"] = maps.result()["pattern"].unflatten(0, (model.n_layers, model.n_heads))
    return {name: values.numpy() for name, values in measured.items()}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return saved_tokenizer("neox", tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("kind", TILED)
def test_tiled_equals_the_naive_oracle(kind: str, tokenizer, monkeypatch) -> None:
    model = Model(kind, network(kind), tokenizer)
    before = model.hf.config._attn_implementation
    for tile_size in (attention_tiles.TILE_SIZE, 300):  # one tile for all, and many small ones
        monkeypatch.setattr(attention_tiles, "TILE_SIZE", tile_size)
        measured = captured(TiledBackend, model, batch_size=3)
        for name, array in expected(kind, torch.float32).items():
            np.testing.assert_allclose(measured[name], array, 1e-5, 1e-5, err_msg=f"{kind} {name}")
    assert model.hf.config._attn_implementation == before
    assert TiledBackend.unsupported_reason(model, passages()[0]) is None


@pytest.mark.parametrize("kind", CONFIGS)
def test_hooks_equals_the_naive_oracle(kind: str, tokenizer) -> None:
    measured = captured(HooksBackend, Model(kind, network(kind), tokenizer), batch_size=3)
    for name, array in expected(kind, torch.float32).items():
        np.testing.assert_allclose(measured[name], array, 1e-5, 1e-5, err_msg=f"{kind} {name}")


@pytest.mark.parametrize("kind", TILED)
def test_bf16_is_as_near_as_bf16_allows(kind: str, tokenizer) -> None:
    model = Model(kind, network(kind).to(torch.bfloat16), tokenizer)
    for backend in (TiledBackend, HooksBackend):
        measured = captured(backend, model, batch_size=3)
        for name in ("alpha", "learned_sink"):
            np.testing.assert_allclose(
                measured[name], expected(kind, torch.bfloat16)[name], atol=0.05, err_msg=f"{kind} {name}"
            )
            assert np.abs(measured[name] - expected(kind, torch.bfloat16)[name]).mean() < 5e-3
    rows = captured(TiledBackend, model)["pattern"].sum(-1) + np.nan_to_num(
        captured(TiledBackend, model)["learned_sink"]
    )
    np.testing.assert_allclose(rows, 1, atol=1e-5)  # accumulated in fp32, whatever the weights are


def test_the_threshold_and_the_learned_sinks_decide_something() -> None:
    assert 0 < expected("llama", torch.float32)["sink_rate"].mean() < 1
    assert expected("gpt_oss", torch.float32)["learned_sink"].mean() > 0.02
    assert np.abs(expected("llama", torch.float32)["learned_sink"]).max() < 1e-5


def test_a_family_without_tiles_is_captured_by_hooks_and_noted(tokenizer) -> None:
    model = Model("bloom", network("bloom"), tokenizer)
    long = [[5] * (backends.MAX_HOOKS_LENGTH + 1)]
    backend = backends.choose_backend(model, long)
    assert backend.name == "hooks"
    assert "BloomForCausalLM does not attend through" in str(backend)
    with pytest.raises(ModelError, match="try `backend` hooks"):
        backends.choose_backend(model, long, "tiled")
    with pytest.raises(ModelError, match="'magic' is unknown"):
        backends.choose_backend(model, long, "magic")  # type: ignore[arg-type]


def test_length_and_cost_decide_between_the_backends(tokenizer, monkeypatch) -> None:
    model = Model("llama", network("llama"), tokenizer)
    assert str(backends.choose_backend(model, [[5] * 1024])) == "hooks"
    long = backends.choose_backend(model, [[5] * 8, [5] * 1025])
    assert str(long) == "tiled (passages have more than 1024 tokens)"
    monkeypatch.setattr(backends, "MAX_HOOKS_COST", model.hf.num_parameters() * 64)
    assert str(backends.choose_backend(model, [[5] * 32] * 2)) == "hooks"
    assert str(backends.choose_backend(model, [[5] * 32] * 3)) == "tiled (model and text are large)"
    assert str(backends.choose_backend(model, [[5] * 32] * 3, "tiled")) == "tiled"
    assert str(backends.choose_backend(model, [[5] * 32] * 3, "hooks")) == "hooks"


def test_an_attention_that_adds_something_of_its_own_is_noticed(tokenizer) -> None:
    """A model whose output is not what scores, softmax and values make is refused, whatever it did."""
    model = Model("llama", network("llama"), tokenizer)
    attention = model.hf.model.layers[1].self_attn
    plain = attention.forward

    def biased(*args, **kwargs):
        out, weights = plain(*args, **kwargs)
        return (out * 3 if model.hf.config._attn_implementation == "sdpa" else out), weights

    attention.forward = biased
    assert "in a way that tiles do not reproduce" in TiledBackend.unsupported_reason(model, passages()[0])


def test_a_failing_capture_leaves_the_model_as_it_was(tokenizer) -> None:
    model = Model("llama", network("llama"), tokenizer)

    class Fails:
        def update(self, block) -> None:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        TiledBackend().capture(model, passages(), [Fails()])
    assert model.hf.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert model.hf(torch.tensor([passages()[0]])).logits.isfinite().all()


def test_shards_add_up_to_one_capture(tokenizer) -> None:
    model = Model("llama", network("llama"), tokenizer)

    def statistics() -> list:
        return [
            SinkStatistics(3, 4, 40, EPSILON),
            *(QueryStatistic(name, (3, 4, 40)) for name in QUERY_STATISTICS),
            BinnedPattern([(2, 0)], 40, 1),
        ]

    full, first, second = ([*statistics(), SpanMass(3, 4, some)] for some in (SPANS, SPANS[:1], SPANS[1:]))
    TiledBackend().capture(model, passages(), full)
    TiledBackend().capture(model, passages()[:1], first)
    TiledBackend().capture(model, passages()[1:], second)
    for all_at_once, one, other in zip(full, first, second, strict=True):
        for name, values in (one + other).result().items():
            torch.testing.assert_close(values, all_at_once.result()[name], equal_nan=True)
    with pytest.raises(ValueError, match="do not add up"):
        SinkStatistics(3, 4, 40, 0.3) + SinkStatistics(3, 4, 40, 0.2)
    with pytest.raises(ValueError, match="do not add up"):
        BinnedPattern([(2, 0)], 40, 1) + BinnedPattern([(1, 0)], 40, 1)
