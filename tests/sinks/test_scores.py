"""Attention scores before the softmax: those of TransformerLens, and what softmax makes the pattern of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sinkscope.errors import TextError
from sinkscope.models.model import Model
from sinkscope.plots.sinks import draw_attention_scores, draw_locate
from sinkscope.sinks.locate import CaptureConfig, attention_scores, head_maps, locate, write_locate
from tests.conftest import saved_tokenizer
from tests.sinks.architectures import build, passages


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return saved_tokenizer("neox", tmp_path_factory.mktemp("tokenizer"))


def test_scores_are_those_of_transformer_lens(small_llama: Model) -> None:
    tokens = [1, *range(5, 40)]
    heads = [(layer, head) for layer in range(small_llama.n_layers) for head in range(small_llama.n_heads)]
    found = attention_scores(small_llama, tokens, heads)
    names = [f"blocks.{layer}.attn.hook_attn_scores" for layer in range(small_llama.n_layers)]
    with torch.no_grad():
        _, cache = small_llama.bridge.run_with_cache(torch.tensor([tokens]), names_filter=names)
    later = np.triu(np.ones((len(tokens), len(tokens)), dtype=bool), 1)
    for (layer, head), scores in found.items():
        expected = cache[names[layer]][0, head].numpy()
        np.testing.assert_allclose(scores[~later], expected[~later], rtol=1e-4, atol=1e-5)
        assert np.isnan(scores[later]).all()


@pytest.mark.parametrize("name", ["gemma2", "inkling_text", "llama4_text"])  # softcap, position bias, chunks
def test_the_pattern_is_the_softmax_of_the_scores(name: str, tokenizer) -> None:
    model = Model(name, build(name), tokenizer)
    tokens = passages()[0]
    heads = [(0, 0), (model.n_layers - 1, model.n_heads - 1)]
    patterns = head_maps(model, tokens, heads, backend="tiled")
    for head, scores in attention_scores(model, tokens, heads).items():
        softmax = np.exp(scores - np.nanmax(scores, 1, keepdims=True))
        softmax /= np.nansum(softmax, 1, keepdims=True)
        np.testing.assert_allclose(np.nan_to_num(softmax), patterns[head], atol=1e-5)


def test_bins_have_the_mean_over_what_their_queries_see(small_llama: Model) -> None:
    tokens = [1, *range(5, 27)]
    whole = attention_scores(small_llama, tokens, [(1, 2)])[1, 2]
    in_bins = attention_scores(small_llama, tokens, [(1, 2)], bin_size=5)[1, 2]
    for query in range(5):
        for key in range(5):
            cells = whole[5 * query : 5 * query + 5, 5 * key : 5 * key + 5]
            if key > query:
                assert np.isnan(in_bins[query, key])
            else:
                np.testing.assert_allclose(in_bins[query, key], np.nanmean(cells), rtol=1e-6)


def test_details_have_scores_of_the_first_passage_also_of_a_sample(small_llama: Model) -> None:
    texts = [[1, *range(5, 20)], [1, *range(30, 40)], [1, *range(5, 200)]]
    for fraction in (None, 0.1):
        config = CaptureConfig(statistics=("attention_scores",), query_fraction=fraction)
        found = locate(small_llama, texts, config, details=True)
        assert found.passage is not None
        for head in ((0, 0), (1, 3)):
            expected = attention_scores(small_llama, texts[0], [head])[head]
            by_head = found.passage["attention_scores"].sel(layer=head[0], head=head[1])
            np.testing.assert_allclose(by_head, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TextError, match="is one of the details"):
        locate(small_llama, texts, CaptureConfig(statistics=("attention_scores",)))
    with pytest.raises(TextError, match="'attention_scores' is not read by `backend` hooks"):
        CaptureConfig(statistics=("attention_scores",), backend="hooks")


def test_chosen_heads_get_a_picture_of_their_scores(small_llama: Model, tmp_path) -> None:
    texts = [[1, *range(5, 20)], [1, *range(30, 40)]]
    config = CaptureConfig(statistics=("attention_scores",))
    write_locate(tmp_path / "run", small_llama, texts, config, heads=[(1, 3)], draw=draw_locate)
    table = pd.read_csv(tmp_path / "run" / "figures" / "attention_scores_1_3.csv")
    assert list(table.columns) == ["query", "key", "query_token", "key_token", "score"]
    expected = attention_scores(small_llama, texts[0], [(1, 3)])[1, 3]
    np.testing.assert_allclose(table["score"], expected[table["query"], table["key"]], rtol=1e-4)
    assert (table["key"] <= table["query"]).all() and len(table) == 16 * 17 / 2
    image = draw_attention_scores(expected, ["x"] * 16, "a model").axes[0].images[0]
    low, high = image.get_clim()
    assert low == -high and high == pytest.approx(np.nanmax(np.abs(expected)))
