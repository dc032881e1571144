"""Sink maps: formulas on patterns whose answer is known by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sinkscope.errors import PlacementError, TextError
from sinkscope.models.model import Model, load
from sinkscope.schema import KINDS
from sinkscope.sinks.backends import BackendName
from sinkscope.sinks.capture import AttentionBlock, Sampling, ValueBlock
from sinkscope.sinks.locate import CaptureConfig, head_maps, locate, locate_passage, write_locate
from sinkscope.sinks.sink_map import SinkMap, uniform_alpha
from sinkscope.sinks.statistics import SinkStatistics
from sinkscope.text import tokenize_passages
from tests.conftest import TEXT, saved_tokenizer
from tests.sinks.families import network


def accumulate(
    patterns: list[torch.Tensor], length: int, rows: int, heads: int, epsilon: float = 0.3
) -> dict[str, torch.Tensor]:
    """Patterns [head, row, key] of passages through tiles of some rows and heads; values are ones."""
    n_heads = len(patterns[0])
    statistic = SinkStatistics(1, n_heads, length, epsilon)
    for pattern in patterns:
        size = pattern.shape[-1]
        statistic.update(ValueBlock(0, 0, torch.ones(n_heads, size, 4)))
        for row in range(0, size, rows):
            for head in range(0, n_heads, heads):
                some_heads = range(head, min(head + heads, n_heads))
                stop = min(row + rows, size)
                last = stop == size and some_heads.stop == n_heads
                part = pattern[head : some_heads.stop, row:stop, :stop]
                some_rows = torch.arange(row, stop)
                statistic.update(AttentionBlock(0, 0, size, some_heads, some_rows, range(stop), part, last))
    return statistic.result()


def test_alpha_of_uniform_attention_at_64_is_the_published_baseline(small_llama: Model) -> None:
    pattern = (torch.tril(torch.ones(64, 64)) / torch.arange(1, 65)[:, None])[None]
    result = accumulate([pattern], 64, rows=64, heads=1)
    assert result["alpha"][0, 0, 0].item() == pytest.approx(0.074, abs=5e-4)
    sinks = locate(small_llama, [small_llama.with_bos(list(range(10, 73)))])
    np.testing.assert_allclose(sinks.uniform.mean("layer"), result["alpha"][0, 0].numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "gemma2", "gemma3", "opt", "gpt2"])
@pytest.mark.parametrize("backend", ["hooks", "tiled"])
def test_queries_of_nothing_attend_uniformly(kind: str, backend: BackendName, tmp_path: Path) -> None:
    """So α is the baseline of every layer, whatever its window, over passages of any lengths."""
    made = network(kind)
    for name, parameter in made.named_parameters():
        if "q_proj" in name:
            torch.nn.init.zeros_(parameter)
        elif "c_attn" in name:
            torch.nn.init.zeros_(parameter[..., :32])
    made.save_pretrained(tmp_path)
    saved_tokenizer("llama", tmp_path)
    model = load(str(tmp_path), device="cpu")
    sinks = locate(
        model,
        [list(range(5, 5 + length)) for length in (40, 7, 23, 23, 2)],
        config=CaptureConfig(backend=backend),
    )
    expected = np.broadcast_to(sinks.data["uniform"].values[:, None], sinks.alpha.shape)
    np.testing.assert_allclose(sinks.alpha.values, expected, rtol=2e-5)
    assert (sinks.data["passages"].values[[0, 5, 20, 39]] == [5, 4, 3, 1]).all()
    assert np.ptp(sinks.data["uniform"].values, axis=0).max() > 0.01 or kind not in ("gemma2", "gemma3"), (
        "layers with windows and layers without"
    )


@pytest.mark.parametrize("window", [None, 1, 5, 30, 99])
def test_uniform_is_the_mean_of_shares_of_all_later_queries(window: int | None) -> None:
    shares = np.zeros((30, 30))
    for query in range(30):
        keys = range(max(0, query + 1 - (window or 30)), query + 1)
        shares[query, keys] = 1 / len(keys)

    def visible(rows: torch.Tensor, n_keys: int) -> torch.Tensor:
        return torch.from_numpy(shares > 0)[rows, :n_keys]

    expected = [shares[k:, k].mean() for k in range(30)]
    np.testing.assert_allclose(uniform_alpha(30, visible if window else None), expected, rtol=1e-12)


def test_a_sample_has_the_baseline_of_the_passages_that_count(small_llama: Model) -> None:
    lengths, sampling = (700, 500, 90), Sampling(0.1, 0)
    sinks = locate(
        small_llama,
        [[1] + [5 + i % 300 for i in range(length - 1)] for length in lengths],
        CaptureConfig(query_fraction=0.1),
    )
    assert sampling.n_estimated(700) < 700
    for position in range(700):
        counting = [length for length in lengths if position < sampling.n_estimated(length)]
        assert sinks.data["passages"][position] == len(counting)
        expected = np.mean([uniform_alpha(length)[position] for length in counting]) if counting else np.nan
        np.testing.assert_allclose(sinks.uniform.mean("layer")[position], expected, rtol=1e-9)


def test_attention_that_always_goes_to_the_first_token_is_a_sink() -> None:
    pattern = torch.zeros(1, 8, 8)
    pattern[..., 0] = 1
    result = accumulate([pattern, pattern], 8, rows=8, heads=1)
    assert result["alpha"][0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert result["sink_rate"][0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert result["weighted_norm"][0, 0, 0].item() == 2  # 1 × norm of four ones


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 1000))
def test_tiles_add_up_to_one_block(rows: int, heads: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 10, (3,), generator=generator).tolist()
    patterns = [torch.rand(3, n, n, generator=generator).tril() for n in lengths]
    full, tiled = accumulate(patterns, 9, 9, 3, epsilon=-1), accumulate(patterns, 9, rows, heads, epsilon=-1)
    for name in full:  # no threshold, so that the order of a sum is not what is tested
        torch.testing.assert_close(tiled[name], full[name], equal_nan=True, atol=1e-5, rtol=1e-5)


def test_ranked_sinks_start_with_the_strongest_and_leave_out_the_last_positions(small_llama: Model) -> None:
    sinks = locate(small_llama, [small_llama.with_bos(list(range(20, 60)))])
    ranked = sinks.ranked()
    means = sinks.alpha.mean(["layer", "head"]).values
    assert ranked["rank"].tolist() == list(range(1, len(ranked) + 1))
    assert sinks.strongest(1) == int(np.argmax(means[: len(ranked)]))
    assert ranked["position"].max() == len(means) // 2, "which half of the queries see"
    with pytest.raises(PlacementError, match="rank 999"):
        sinks.strongest(999)


@pytest.mark.parametrize("lengths", [(9, 40, 40), (40, 9, 9, 9), (8, 9, 12, 33, 2), (2, 2)])
def test_positions_are_ranked_that_are_comparable_in_half_of_the_passages_that_have_them(
    small_llama: Model, lengths: tuple[int, ...]
) -> None:
    sinks = locate(small_llama, [list(range(20, 20 + length)) for length in lengths])
    expected = []
    for position in range(max(lengths)):
        having = [length for length in lengths if length > position]
        n_comparable = sum(2 * (length - position) >= length for length in having)
        if 2 * n_comparable >= len(having):
            expected.append(position)
    assert sorted(sinks.ranked()["position"]) == expected


def test_frame_and_files_keep_every_number(small_llama: Model, tmp_path) -> None:
    sinks = locate(small_llama, [small_llama.with_bos(list(range(20, 50)))])
    frame = sinks.to_frame()
    assert list(frame.columns) == [
        "layer",
        "head",
        "position",
        "alpha",
        "sink_rate",
        "value_norm",
        "weighted_norm",
        "uniform",
    ]
    assert len(frame) == 3 * 4 * 31
    row = frame[(frame["layer"] == 2) & (frame["head"] == 1) & (frame["position"] == 5)].iloc[0]
    assert row["alpha"] == float(sinks.alpha.sel(layer=2, head=1, position=5))
    sinks.save(tmp_path)
    assert SinkMap.read(tmp_path).data.equals(sinks.data)


def test_statistics_are_attributes_except_for_the_sink_rate_of_a_sample(small_llama: Model) -> None:
    passage = [1] + [5 + i % 300 for i in range(299)]
    sinks = locate(small_llama, [passage])
    for name in ("sink_rate", "value_norm", "weighted_norm", "uniform"):
        assert getattr(sinks, name).equals(sinks.data[name])
    sample = locate(small_llama, [passage], CaptureConfig(query_fraction=0.1))
    assert sample.is_sampled and not sinks.is_sampled
    with pytest.raises(TextError, match="a sample of queries has no sink rate"):
        _ = sample.sink_rate


def test_a_written_run_has_what_locate_returns_with_details(small_llama: Model, tmp_path: Path) -> None:
    passages = [small_llama.with_bos(list(range(20, 50))), small_llama.with_bos(list(range(30, 70)))]
    sinks = locate(small_llama, passages, details=True)
    written = write_locate(tmp_path / "run", small_llama, passages, CaptureConfig())
    assert written.data.equals(sinks.data)
    for file, columns in KINDS["locate"].tables.items():
        if file == "experts.parquet":  # on request
            continue
        table = pd.read_parquet(tmp_path / "run" / file)
        assert list(table.columns) == columns
        pd.testing.assert_frame_equal(table, sinks.tables[file.removesuffix(".parquet")])
    passage = xr.load_dataset(tmp_path / "run" / "passage.nc", engine="h5netcdf")
    np.testing.assert_allclose(passage["alpha"], locate_passage(small_llama, passages[0]).alpha, atol=1e-6)
    assert passage["pattern"].dims == ("layer", "head", "query", "key") and passage.attrs["bin"] == 1


def test_a_sample_has_details_of_every_query_of_one_passage(small_llama: Model) -> None:
    passages = [[1, *np.random.default_rng(i).integers(3, 90, 250).tolist()] for i in range(3)]
    config = CaptureConfig(backend="tiled", passage=1)
    full = locate(small_llama, passages, config, details=True)
    sample = locate(small_llama, passages, replace(config, query_fraction=0.1), details=True)
    assert full.passage is not None and sample.passage is not None
    xr.testing.assert_allclose(sample.passage, full.passage, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("length", "bin_size"), [(60, 1), (100, 1), (250, 4)])
def test_maps_are_drawn_of_every_position_of_short_passages(
    length: int, bin_size: int, small_llama: Model, tmp_path: Path
) -> None:
    passage = [1, *np.random.default_rng(0).integers(3, 90, length - 1).tolist()]
    drawn: list[xr.Dataset] = []
    heads = [(1, 2), (0, 1)]
    config = CaptureConfig(backend="tiled")
    write_locate(
        tmp_path / "run",
        small_llama,
        [passage],
        config,
        heads=heads,
        draw=lambda *data: drawn.append(data[3]),
    )
    maps = head_maps(small_llama, passage, heads, bin_size)
    assert drawn[0].attrs["bin"] == bin_size
    np.testing.assert_allclose(drawn[0]["pattern"], [maps[head] for head in heads], atol=1e-6)


def test_nothing_to_locate_in_is_an_error(small_llama: Model) -> None:
    with pytest.raises(TextError, match="no passages"):
        locate(small_llama, [])
    with pytest.raises(TextError, match="fewer than two tokens"):
        locate(small_llama, [[1, 5, 6], [1]])


def test_text_in_the_place_of_passages_or_of_a_list_is_refused(small_llama: Model) -> None:
    for passages in (["the old captain"], "the old captain"):
        with pytest.raises(TextError, match="not text; tokenize first"):
            locate(small_llama, passages)
    with pytest.raises(TextError, match="give a list of texts"):
        tokenize_passages("the old captain walked along the wall", small_llama, 64)


def test_documents_that_are_too_short_are_told(small_llama: Model, caplog: pytest.LogCaptureFixture) -> None:
    passages = tokenize_passages(["a lamp", "the harbour was quiet " * 20, ""], small_llama, 64)
    assert len(passages) >= 1
    assert [record.message for record in caplog.records] == [
        "2 of 3 documents have fewer than 16 tokens and are left out"
    ]
    caplog.clear()
    tokenize_passages(["the harbour was quiet " * 20], small_llama, 64)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_measured_as_text(kind: str, side: str, small_models: dict[str, Model]) -> None:
    model = small_models[kind]
    pad = model.tokenizer.pad_token_id
    if pad is None:
        pytest.skip("its tokenizer has no padding")
    passages = [model.with_bos([*range(20, 40)]), model.with_bos([*range(30, 44)])]
    batch = torch.full((2, len(passages[0])), pad)
    batch[0] = torch.tensor(passages[0])
    columns = slice(None, len(passages[1])) if side == "right" else slice(-len(passages[1]), None)
    batch[1, columns] = torch.tensor(passages[1])
    with pytest.raises(TextError, match=r"passage 1 (begins|ends) with padding"):
        locate(model, batch)
    for same in (list(map(torch.tensor, passages)), [*map(np.array, passages)]):
        assert locate(model, same).data.equals(locate(model, passages).data)
    with pytest.raises(TextError, match="must be a list of passages, even of one"):
        locate(model, passages[0])


def test_details_are_of_the_passage_that_was_asked_for(small_llama: Model, tmp_path: Path) -> None:
    """As `locate` measures it alone; the head of the greatest entropy against a literal loop over rows."""
    passages = [small_llama.encode(TEXT)[:length] for length in (40, 24, 33)]
    sinks = locate(small_llama, passages, CaptureConfig(passage=2), details=True)
    alone = locate(small_llama, passages[2:], details=True)
    assert sinks.passage is not None and alone.passage is not None
    np.testing.assert_allclose(sinks.passage["alpha"], alone.passage["alpha"], atol=1e-6)
    assert sinks.tables["passage"]["token"].tolist() == passages[2]
    np.testing.assert_allclose(sinks.passage["entropy"], alone.passage["entropy"], atol=1e-6)
    entropies = {}
    for layer, head in product(range(small_llama.n_layers), range(small_llama.n_heads)):
        rows = head_maps(small_llama, passages[2], [(layer, head)])[layer, head]
        entropies[layer, head] = sum(
            -sum(p * math.log(p) for p in row[: q + 1] if p > 0) for q, row in enumerate(rows.tolist())
        )
    assert sinks.head_of_greatest_entropy() == max(entropies, key=entropies.__getitem__)
    with pytest.raises(TextError, match="`passage` 3 does not exist: there are 3, numbered from 0"):
        locate(small_llama, passages, CaptureConfig(passage=3), details=True)
    drawn: list[Any] = []
    for label in ("one", "other"):
        small = replace(small_llama, label=label)
        found = write_locate(
            tmp_path / label, small, passages, CaptureConfig(passage=1), draw=lambda *data: drawn.append(data)
        )
        assert found.data.attrs["model"] == label
    maps = drawn[0][3]
    assert (int(maps["layer"][0]), int(maps["head"][0])) == found.strongest_head()
    assert maps.sizes["map"] == 2 and not maps.attrs["selected"]
