"""α from a sample of rows: unbiased, with intervals that cover, on every family that sdpa serves."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sinkscope import load
from sinkscope.errors import ModelError, TextError
from sinkscope.models import attention_tiles
from sinkscope.models.model import Model
from sinkscope.sinks import capture, sampling
from sinkscope.sinks.capture import ALWAYS_SAMPLED, AttentionBlock, ResidualBlock, Sampling, ValueBlock
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.sinks.sampling import SampledSinkStatistics
from sinkscope.sinks.statistics import BinnedPattern, QueryStatistic, SinkStatistics, SpanMass
from sinkscope.sinks.tiled import TiledBackend
from tests.conftest import TEXT, saved_tokenizer
from tests.sinks.families import TILED, naive, network

WITHOUT_SDPA = ("gemma2", "gpt_oss")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return saved_tokenizer("neox", tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def few_always_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are drawn from short passages too."""
    for name, value in {"ALWAYS_SAMPLED": 4, "MIN_SAMPLED_ROWS": 2, "MIN_EXPECTED_ROWS": 1}.items():
        monkeypatch.setattr(capture, name, value)
    monkeypatch.setattr(sampling, "ALWAYS_SAMPLED", capture.ALWAYS_SAMPLED)


def passages(lengths: tuple[int, ...]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 400, (length,), generator=generator).tolist() for length in lengths]


def estimate_from(
    pattern: torch.Tensor, rows: torch.Tensor, sampling_config: Sampling
) -> dict[str, np.ndarray]:
    """The result for one passage's pattern [head, row, key] at some rows; values are ones."""
    n_heads, length, _ = pattern.shape
    statistic = SampledSinkStatistics(1, n_heads, length, sampling_config)
    statistic.update(ValueBlock(0, 0, torch.ones(n_heads, length, 4)))
    statistic.update(
        AttentionBlock(0, 0, length, range(n_heads), rows, range(length), pattern[:, rows], True, True)
    )
    return {name: values[0].numpy() for name, values in statistic.result().items()}


def test_rows_are_drawn_by_seed_layer_and_passage() -> None:
    rows = Sampling(0.1).rows(0, 0, 2048)
    assert torch.equal(rows[:ALWAYS_SAMPLED], torch.arange(ALWAYS_SAMPLED))
    assert len(rows) == ALWAYS_SAMPLED + 192 == len(set(rows.tolist()))
    assert torch.equal(rows, rows.sort().values) and rows[-1] < 2048
    assert torch.equal(rows, Sampling(0.1).rows(0, 0, 2048))
    for other in (
        Sampling(0.1, seed=1).rows(0, 0, 2048),
        Sampling(0.1).rows(1, 0, 2048),
        Sampling(0.1).rows(0, 1, 2048),
    ):
        assert not torch.equal(rows, other)
    assert torch.equal(Sampling(0.1).rows(0, 0, 100), torch.arange(100))  # short passages are read in full
    assert torch.equal(Sampling(1.0).rows(0, 0, 300), torch.arange(300))


def test_the_mean_over_every_possible_sample_is_the_exact_value(few_always_sampled) -> None:
    pattern = torch.rand(2, 10, 10, generator=torch.Generator().manual_seed(3)).tril()
    exact = pattern.double().sum(1) / torch.arange(10, 0, -1)
    sampling_config = Sampling(0.5)
    assert sampling_config.n_drawn(10) == 3
    samples = [
        estimate_from(pattern, torch.tensor([0, 1, 2, 3, *drawn]), sampling_config)["alpha"]
        for drawn in combinations(range(4, 10), 3)
    ]
    reach = sampling_config.n_estimated(10)
    assert 7 < reach < 10
    estimate = np.nanmean(
        samples, axis=0
    )  # a sample without a row at or after a position has no estimate there
    np.testing.assert_allclose(estimate[:, :reach], exact.numpy()[:, :reach], atol=1e-6)
    assert np.isnan(np.array(samples)[..., reach:]).all()


def test_the_interval_of_attention_that_is_all_or_nothing_is_wilsons() -> None:
    length, sampling_config = 1128, Sampling(0.1)
    rows = sampling_config.rows(0, 0, length)
    pattern = torch.zeros(1, length, length)
    pattern[0, ALWAYS_SAMPLED:, 0] = (torch.arange(length - ALWAYS_SAMPLED) % 3 == 0).float()
    pattern[0, :, 1] = 1 - pattern[0, :, 0]
    estimate = estimate_from(pattern, rows, sampling_config)
    p, n = (
        pattern[0, rows[ALWAYS_SAMPLED:], 0].mean().item(),
        99 / (1 - 100 / 1000),
    )  # the finite population's correction, as more rows
    z = 1.984217  # Student, 99 degrees of freedom
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    for name, end in (("alpha_low", centre - half), ("alpha_high", centre + half)):
        assert estimate[name][0, 0] == pytest.approx(end / (1 + z * z / n) * 1000 / length, abs=1e-4)
    assert estimate["alpha"][0, 0] == pytest.approx(p * 1000 / length)
    assert (
        estimate["alpha_low"][0, 5] == 0 < 0.01 < estimate["alpha_high"][0, 5] < 0.1
    )  # none of the drawn rows attend there, others may


@pytest.mark.parametrize("kind", [kind for kind in TILED if kind not in WITHOUT_SDPA])
def test_samples_equal_the_naive_oracle_at_their_rows(
    kind: str, tokenizer, few_always_sampled, monkeypatch
) -> None:
    model, texts = Model(kind, network(kind), tokenizer), passages((40, 23, 31))
    monkeypatch.setattr(attention_tiles, "TILE_SIZE", 300)
    sampling_config, shape = Sampling(0.5, seed=3), (3, 4, 40)
    statistic, everything = (
        SampledSinkStatistics(*shape, sampling_config),
        SampledSinkStatistics(*shape, Sampling(1.0)),
    )
    TiledBackend(sampling_config).capture(model, texts, [statistic], batch_size=2)
    TiledBackend(Sampling(1.0)).capture(model, texts, [everything], batch_size=2)
    alpha, count = np.zeros(shape), np.zeros(40)
    for number, passage in enumerate(texts):
        pattern, size, reach = (
            naive(network(kind), kind, [passage], 0.1)["pattern"],
            len(passage),
            sampling_config.n_estimated(len(passage)),
        )
        count[:reach] += 1
        for layer in range(3):
            drawn = [row for row in sampling_config.rows(layer, number, size).tolist() if row >= 4]
            for k in range(reach):
                later = [row for row in drawn if row >= k]
                left = size - max(k, 4)
                mean = sum(pattern[layer, :, row, k] for row in later) / len(later)
                alpha[layer, :, k] += (
                    sum(pattern[layer, :, row, k] for row in range(k, 4)) + left * mean
                ) / (size - k)
    estimate = statistic.result()
    np.testing.assert_allclose(estimate["alpha"].numpy(), alpha / np.where(count, count, np.nan), atol=1e-5)
    full, exact = everything.result(), naive(network(kind), kind, texts, 0.1)
    for name in full:
        values, expected = full[name].numpy(), exact["alpha" if name.startswith("alpha") else name]
        np.testing.assert_allclose(values, expected, atol=1e-5)  # every row is read


def long_text(model: Model, length: int) -> list[int]:
    return (model.with_bos(model.tokenizer.encode(TEXT * 4, add_special_tokens=False)))[:length]


def peaked() -> LlamaForCausalLM:
    """Random heads that look at single tokens far away: the worst case for a sample."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 400,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=1024, initializer_range=0.3)).eval()


@pytest.mark.parametrize("kind", ["tiny", "even", "peaked"])
def test_intervals_cover_the_exact_value(kind: str, tokenizer) -> None:
    """In 93 to 97 % of cases, as 95 % intervals should; and the error has no direction."""
    if kind == "tiny":
        model = load("tiny", device="cpu")
        texts = [long_text(model, 500)]
    else:
        model = Model(kind, network("llama") if kind == "even" else peaked(), tokenizer)
        if kind == "even":
            model.hf.set_attn_implementation("sdpa")
            for parameter in model.hf.parameters():
                parameter.data.mul_(0.3 if parameter.ndim == 2 else 1)
        texts = passages((800,))
    exact = locate(model, texts, CaptureConfig(backend="tiled")).alpha.values
    estimates = [
        locate(model, texts, CaptureConfig(query_fraction=0.1, seed=seed)).data for seed in range(40)
    ]
    assert {str(sample.attrs["backend"]) for sample in estimates} == {"tiled"}
    known = ~np.isnan(estimates[0]["alpha"].values)
    covered = [
        (sample["alpha_low"].values <= exact + 1e-6) & (sample["alpha_high"].values >= exact - 1e-6)
        for sample in estimates
    ]
    assert 0.92 < np.mean([inside[known] for inside in covered]) < 0.985
    errors = np.array([(sample["alpha"].values - exact)[known].mean() for sample in estimates])
    assert abs(errors.mean()) < 3 * errors.std() / math.sqrt(len(errors))
    assert known[..., :300].all() and not known[..., -8:].any()


def test_the_models_own_output_goes_on(tokenizer) -> None:
    """The residual stream under a sample is the plain model's."""
    model, texts = Model("qwen2", network("qwen2"), tokenizer), passages((60, 44))
    residuals: dict[tuple[int, int], torch.Tensor] = {}

    class Residuals:
        residual = True

        def update(self, block) -> None:
            if isinstance(block, ResidualBlock):
                residuals[block.layer, block.passage] = block.residual

    TiledBackend(Sampling(0.1)).capture(model, texts, [Residuals()])
    for number, passage in enumerate(texts):
        with torch.no_grad():
            hidden = model.hf(torch.tensor([passage]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(residuals[0, number], hidden[1][0], atol=1e-5, rtol=1e-5)
        assert len(residuals[2, number]) == len(passage)


@pytest.mark.parametrize("kind", WITHOUT_SDPA)
def test_a_family_without_sdpa_is_read_in_full_and_says_so(kind: str, tokenizer) -> None:
    model, texts = Model(kind, network(kind), tokenizer), passages((40,))
    sinks = locate(model, texts, CaptureConfig(query_fraction=0.1))
    assert "does not attend through sdpa, so every row was read" in sinks.data.attrs["backend"]
    np.testing.assert_allclose(
        sinks.alpha.values, locate(model, texts, CaptureConfig(backend="tiled")).alpha.values
    )
    assert "sink_rate" in sinks.data and "query_fraction" not in sinks.data.attrs


def test_a_sample_of_bloom_is_captured_by_hooks_in_full(tokenizer) -> None:
    sinks = locate(
        Model("bloom", network("bloom"), tokenizer), passages((40,)), CaptureConfig(query_fraction=0.1)
    )
    assert sinks.data.attrs["backend"].startswith("hooks (BloomForCausalLM")
    assert sinks.data.attrs["backend"].endswith("so every row was read)")


def test_attention_that_is_the_same_in_every_row_lies_in_its_interval() -> None:
    """0.9 to the first token, 0.1 to itself: α is an end of the interval, and the interval is narrow."""
    length, sampling_config = 1128, Sampling(0.1)
    pattern = 0.1 * torch.eye(length)[None]
    pattern[0, :, 0] += 0.9
    estimate, exact = (
        estimate_from(pattern, sampling_config.rows(0, 0, length), sampling_config),
        pattern[0].double().sum(0) / torch.arange(length, 0, -1),
    )
    assert estimate["alpha_low"][0, 0] <= estimate["alpha"][0, 0] + 1e-6
    assert estimate["alpha_low"][0, 0] - 1e-6 <= exact[0] <= estimate["alpha_high"][0, 0] + 1e-6
    assert estimate["alpha_high"][0, 0] - estimate["alpha_low"][0, 0] < 0.04


@pytest.mark.parametrize("length", [128, 129, 140, 160])
def test_a_passage_that_is_read_in_full_is_known_everywhere(length: int, small_llama: Model) -> None:
    texts, sampling_config = passages((length, 100)), Sampling(0.1)
    statistic, exact = SampledSinkStatistics(3, 4, length, sampling_config), SinkStatistics(3, 4, length, 0.3)
    TiledBackend(sampling_config).capture(small_llama, texts, [statistic])
    TiledBackend().capture(small_llama, texts, [exact])
    for name in ("alpha", "alpha_low", "alpha_high"):
        torch.testing.assert_close(statistic.result()[name], exact.result()["alpha"], atol=1e-5, rtol=1e-5)


def test_passages_of_several_lengths_are_averaged_where_they_tell_something(tokenizer) -> None:
    """At each position the estimate covers the mean over the passages that count there."""
    model, lengths = Model("llama", network("llama"), tokenizer), (128, 120, 126)
    texts, sampling_config = passages(lengths), Sampling(0.3)
    exact = [naive(network("llama"), "llama", [text], 0.1)["alpha"] for text in texts]
    covered, errors = [], []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ALWAYS_SAMPLED": 16, "MIN_SAMPLED_ROWS": 8}.items():
            patch.setattr(capture, name, value)
        patch.setattr(sampling, "ALWAYS_SAMPLED", capture.ALWAYS_SAMPLED)
        expected, count = np.zeros((3, 4, 128)), np.zeros(128)
        for alpha, length in zip(exact, lengths, strict=True):
            reach = sampling_config.n_estimated(length)
            expected[..., :reach] += alpha[..., :reach]
            count[:reach] += 1
        known = count > 0
        expected = expected[..., known] / count[known]
        for seed in range(40):
            seeded = Sampling(0.3, seed)
            statistic = SampledSinkStatistics(3, 4, 128, seeded)
            TiledBackend(seeded).capture(model, texts, [statistic])
            estimate = {name: values.numpy() for name, values in statistic.result().items()}
            np.testing.assert_array_equal(
                np.isnan(estimate["alpha"]), np.broadcast_to(~known, estimate["alpha"].shape)
            )
            covered.append(
                (estimate["alpha_low"][..., known] <= expected + 1e-6)
                & (estimate["alpha_high"][..., known] >= expected - 1e-6)
            )
            errors.append((estimate["alpha"][..., known] - expected).mean())
    assert 0 < known.sum() < 128 and len(set(count[known])) > 1
    assert 0.92 < np.mean(covered) < 0.985
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(len(errors))


def test_short_passages_are_measured_in_full_and_say_so(small_llama: Model) -> None:
    sinks = locate(small_llama, passages((100, 60)), CaptureConfig(query_fraction=0.1))
    assert sinks.data.attrs["backend"] == "tiled (no passage has more than 128 tokens, so every row was read)"
    assert "sink_rate" in sinks.data and "query_fraction" not in sinks.data.attrs


def test_a_sample_ranks_the_positions_that_all_queries_rank(small_llama: Model) -> None:
    texts = passages((300, 300, 60))
    full = locate(small_llama, texts)
    sample = locate(small_llama, texts, CaptureConfig(query_fraction=0.1, statistics=("key_norm",)))
    assert sorted(sample.ranked()["position"]) == sorted(full.ranked()["position"]) == list(range(151))
    assert sample.data["key_norm"].notnull().all(), "keys need no queries"


def test_bad_shares_are_refused(small_llama: Model) -> None:
    texts = passages((40,))
    for share in (0, -0.1, 1.5):
        with pytest.raises(TextError, match="above 0 and at most 1"):
            locate(small_llama, texts, CaptureConfig(query_fraction=share))
    with pytest.raises(TextError, match=r"'entropy' needs every query"):
        CaptureConfig(query_fraction=0.1, statistics=("entropy",))
    with pytest.raises(ModelError, match="hooks reads every row"):
        locate(small_llama, texts, CaptureConfig(query_fraction=0.1, backend="hooks"))


def test_full_attention_and_samples_are_never_confused(small_llama: Model) -> None:
    sampling_config = Sampling(0.1)
    with pytest.raises(TypeError, match="needs every row"):
        TiledBackend(sampling_config).capture(small_llama, passages((40,)), [SinkStatistics(3, 4, 40, 0.3)])
    for statistic in (
        QueryStatistic("entropy", (3, 4, 40)),
        BinnedPattern([(0, 0)], 40, 1),
        SpanMass(3, 4, [range(2, 4)]),
    ):
        with pytest.raises(TypeError, match="needs every row"):
            TiledBackend(sampling_config).capture(small_llama, passages((40,)), [statistic])
    with pytest.raises(TypeError, match="given full attention"):
        SampledSinkStatistics(1, 1, 4, sampling_config).update(
            AttentionBlock(0, 0, 4, range(1), torch.arange(4), range(4), torch.zeros(1, 4, 4), True)
        )


def test_shards_of_a_sample_add_up(few_always_sampled) -> None:
    sampling_config, generator = Sampling(0.5), torch.Generator().manual_seed(5)
    patterns = [torch.rand(2, n, n, generator=generator).tril() for n in (40, 31, 36)]
    full, first, second = (SampledSinkStatistics(1, 2, 40, sampling_config) for _ in range(3))
    for number, pattern in enumerate(patterns):
        length = pattern.shape[-1]
        rows = sampling_config.rows(0, number, length)
        for statistic in (full, first if number == 0 else second):
            statistic.update(
                ValueBlock(
                    0, number, torch.rand(2, length, 4, generator=torch.Generator().manual_seed(number))
                )
            )
            statistic.update(
                AttentionBlock(0, number, length, range(2), rows, range(length), pattern[:, rows], True, True)
            )
    for name, values in (first + second).result().items():
        torch.testing.assert_close(values, full.result()[name], equal_nan=True)
        assert values[..., :25].isfinite().all()
    assert (full.result()["alpha_high"] - full.result()["alpha_low"])[..., :25].min() > 0
    with pytest.raises(ValueError, match="do not add up"):
        first + SampledSinkStatistics(1, 2, 40, Sampling(0.3))
