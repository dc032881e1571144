"""Hooked, reduced statistics against the plain model's attention tensors, reduced naively."""

from __future__ import annotations

import numpy as np
import pytest

from sinkscope.models.model import Model
from sinkscope.sinks.hooks import HooksBackend
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.sinks.statistics import BinnedPattern
from tests.conftest import FAMILIES, TEXT
from tests.sinks.families import naive

LENGTHS = (40, 23, 31, 40, 17)


def passages_of(model: Model) -> list[list[int]]:
    ids = model.tokenizer.encode(TEXT, add_special_tokens=False)
    return [model.with_bos(ids[7 * i : 7 * i + length - 1]) for i, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("kind", FAMILIES)
def test_locate_equals_the_naive_oracle(kind: str, small_models) -> None:
    model = small_models[kind]
    passages = passages_of(model)
    expected = naive(model.hf, kind, passages, epsilon=0.1)
    for backend, batch_size in (("hooks", 1), ("hooks", 3), ("tiled", 3)):
        located = locate(
            model, passages, CaptureConfig(0.1, ("entropy", "learned_sink"), backend, batch_size=batch_size)
        ).data
        for name in ("alpha", "sink_rate", "value_norm", "weighted_norm", "entropy", "learned_sink"):
            np.testing.assert_allclose(
                located[name].values, expected[name], atol=1e-5, err_msg=f"{kind} {name}"
            )
    assert 0 < expected["sink_rate"].mean() < 1, "the threshold must make a difference"
    assert located["passages"].values.tolist() == [
        sum(len(p) > k for p in passages) for k in range(max(map(len, passages)))
    ]


def test_thresholding_per_passage_differs_from_thresholding_the_mean(small_llama: Model) -> None:
    sinks = locate(small_llama, passages_of(small_llama), CaptureConfig(epsilon=0.1)).data
    assert not np.allclose(sinks["sink_rate"], sinks["alpha"] > 0.1)


def test_grouped_keys_share_value_norms_between_query_heads(small_llama: Model) -> None:
    norms = locate(small_llama, passages_of(small_llama)).data["value_norm"].values
    np.testing.assert_array_equal(norms[:, 0], norms[:, 1])
    np.testing.assert_array_equal(norms[:, 2], norms[:, 3])
    assert not np.allclose(norms[:, 1], norms[:, 2])


def test_mean_pattern_rows_sum_to_one_and_are_causal(small_llama: Model) -> None:
    passages = passages_of(small_llama)
    statistic = BinnedPattern([(1, head) for head in range(small_llama.n_heads)], 40, 1)
    HooksBackend().capture(small_llama, passages, [statistic], batch_size=2)
    pattern = statistic.result()["pattern"].numpy()
    np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
    assert np.abs(np.triu(pattern[0], 1)).max() == 0


def test_booting_the_bridge_leaves_the_model_saveable_and_unchanged(small_llama: Model, tmp_path) -> None:
    before = small_llama.fingerprint()
    assert small_llama.bridge is not None
    small_llama.save(tmp_path / "again")
    assert small_llama.fingerprint() == before
    assert small_llama.hf.config._attn_implementation == "sdpa"
