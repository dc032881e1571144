"""Binned maps of both backends against numpy binning of the plain model's own attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sinkscope.models import attention_tiles
from sinkscope.models.model import Model
from sinkscope.sinks.backends import choose_backend
from sinkscope.sinks.capture import AttentionBlock
from sinkscope.sinks.hooks import HooksBackend
from sinkscope.sinks.statistics import BinnedPattern
from sinkscope.sinks.tiled import TiledBackend
from tests.conftest import saved_tokenizer
from tests.sinks.families import network

HEADS = [(2, 3), (0, 1), (2, 0)]
LENGTHS = (40, 23)


@pytest.fixture(scope="module")
def passages() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 400, (length,), generator=generator).tolist() for length in LENGTHS]


def naive(kind: str, passages: list[list[int]], size: int) -> np.ndarray:
    """One cell at a time: attention from a bin of queries into a bin of keys, over the number of queries."""
    plain = network(kind)
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        outputs = [plain(torch.tensor([tokens]), output_attentions=True).attentions for tokens in passages]
    bins = int(np.ceil(max(map(len, passages)) / size))
    maps = np.full((len(HEADS), bins, bins), np.nan)
    for index, (layer, head) in enumerate(HEADS):
        patterns = [attentions[layer][0, head].double().numpy() for attentions in outputs]
        for row in range(bins):
            rows = [pattern[row * size : (row + 1) * size] for pattern in patterns]
            for key in range(bins):
                maps[index, row, key] = sum(r[:, key * size : (key + 1) * size].sum() for r in rows) / sum(
                    map(len, rows)
                )
    return maps


@pytest.mark.parametrize("size", [1, 7, 8, 64])
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_both_backends_give_the_binned_map_of_the_plain_model(
    kind: str, size: int, passages, tmp_path, monkeypatch
) -> None:
    model = Model(kind, network(kind), saved_tokenizer("neox", tmp_path))
    for backend, tile_size in (
        (HooksBackend, attention_tiles.TILE_SIZE),
        (TiledBackend, attention_tiles.TILE_SIZE),
        (TiledBackend, 300),
    ):
        monkeypatch.setattr(attention_tiles, "TILE_SIZE", tile_size)
        statistic = BinnedPattern(HEADS, max(LENGTHS), size)
        backend().capture(model, passages, [statistic])
        np.testing.assert_allclose(
            statistic.result()["pattern"].numpy(), naive(kind, passages, size), atol=1e-5
        )


def test_rows_of_a_binned_map_sum_to_one_and_are_causal() -> None:
    statistic = BinnedPattern([(0, 0)], 13, 5)
    pattern = torch.rand(1, 13, 13).tril()
    pattern /= pattern.sum(-1, keepdim=True)
    statistic.update(AttentionBlock(0, 0, 13, range(1), torch.arange(13), range(13), pattern, last=True))
    binned = statistic.result()["pattern"][0]
    assert binned.shape == (3, 3)
    torch.testing.assert_close(binned.sum(-1), torch.ones(3, dtype=torch.float64))
    assert (binned.triu(1) == 0).all()


def test_shards_add_up_and_rows_of_no_passage_are_nan(small_llama: Model, passages) -> None:
    full, first, second = (BinnedPattern(HEADS, 40, 6) for _ in range(3))
    choose_backend(small_llama, passages).capture(small_llama, passages, [full])
    choose_backend(small_llama, passages).capture(small_llama, passages[:1], [first])
    choose_backend(small_llama, passages).capture(small_llama, passages[1:], [second])
    torch.testing.assert_close((first + second).result()["pattern"], full.result()["pattern"])
    assert second.result()["pattern"].isnan()[:, 4:].all()
    with pytest.raises(ValueError, match="do not add up"):
        full + BinnedPattern(HEADS, 40, 5)


def test_a_long_passage_costs_no_square() -> None:
    """Tiles go in, bins stay: nothing the statistic holds has the passage's length."""
    statistic = BinnedPattern([(0, 0)], 4001, 32)
    for start in range(0, 4001, 100):
        rows = range(start, min(start + 100, 4001))
        tile = (
            torch.ones(1, len(rows), rows.stop).tril(start) / torch.arange(start + 1, rows.stop + 1)[:, None]
        )
        statistic.update(
            AttentionBlock(
                0, 0, 4001, range(1), torch.tensor(rows), range(rows.stop), tile, last=rows.stop == 4001
            )
        )
    binned = statistic.result()["pattern"][0]
    assert binned.shape == (126, 126)
    torch.testing.assert_close(binned.sum(-1), torch.ones(126, dtype=torch.float64), atol=1e-5, rtol=0)
    assert binned[125, 0].item() == pytest.approx(32 / 4001, rel=1e-6)  # the last bin has one query
