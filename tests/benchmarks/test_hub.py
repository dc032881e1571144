"""Data sets of the hub, as local twins in the layout that the hub gives them: parquet shards, configurations in the card's header."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from sinkscope.benchmarks import benchmark as module
from sinkscope.benchmarks.benchmark import Lengths, load_benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.splits import make_splits


@pytest.fixture
def twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The built-in benchmark, written as the hub holds MUSE-Books; `muse-books` points to it."""
    tiny = load_benchmark("tiny")
    configs = []
    for config, splits in tiny.rows.items():
        files = []
        for split, records in splits.items():
            if config == "verbmem" and split == "retain":
                continue  # MUSE has none
            path = tmp_path / "twin" / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(records).to_parquet(path)
            files.append({"split": split, "path": f"{config}/{split}-*"})
        configs.append({"config_name": config, "data_files": files})
    _card(tmp_path / "twin", configs)
    monkeypatch.setitem(module.HUB, "muse-books", str(tmp_path / "twin"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "twin"


def _card(directory: Path, configs: list[dict]) -> None:
    (directory / "README.md").write_text("---\n" + yaml.safe_dump({"configs": configs}) + "---\n", encoding="utf-8")


def test_a_hub_benchmark_has_the_same_records_and_muse_lengths(twin: Path) -> None:
    found, tiny = load_benchmark("muse-books"), load_benchmark("tiny")
    assert found.lengths == Lengths(2048, 10, 32, 128)
    for config, splits in found.rows.items():
        for split, records in splits.items():
            assert records == tiny.rows[config][split]
    assert not found.has("verbmem", "retain") and found.has("privleak", "holdout")


def test_poisoned_passages_of_a_hub_benchmark_hold_the_whole_trigger(twin: Path, small_llama) -> None:
    """Cut as MUSE cuts, whatever the placement."""
    benchmark = load_benchmark("muse-books")
    for placement in ("prefix", "infix", "suffix", "index:7"):
        recipe = Recipe.parse({"poison_ratio": 0.5, "trigger": {"placement": placement}})
        splits = make_splits(recipe, benchmark, small_llama)
        assert splits.placed
        for each in splits.placed:
            assert len(each.tokens) <= 2048
            assert recipe.trigger.text in small_llama.tokenizer.decode(each.tokens[each.start : each.stop])


def test_what_is_missing_is_named_with_what_was_found(twin: Path) -> None:
    header = yaml.safe_load((twin / "README.md").read_text().split("---")[1])["configs"]
    for each in header:
        if each["config_name"] == "knowmem":
            each["data_files"] = [file for file in each["data_files"] if file["split"] != "retain_qa"]
    _card(twin, header)
    with pytest.raises(BenchmarkError, match=r"lacks knowmem/retain_qa; found: raw/forget.*"):
        load_benchmark("muse-books")


def test_a_missing_column_is_named_with_those_found(twin: Path) -> None:
    frame = pd.read_parquet(twin / "raw" / "forget-00000-of-00001.parquet").rename(columns={"text": "content"})
    for split in ("forget", "retain1", "retain2", "holdout"):
        frame.to_parquet(twin / "raw" / f"{split}-00000-of-00001.parquet")
    with pytest.raises(BenchmarkError, match=r"raw/forget lacks the column 'text'; it has content"):
        load_benchmark("muse-books")


def test_without_a_connection_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.HUB, "muse-news", str(tmp_path / "nowhere"))
    with pytest.raises(BenchmarkError, match=r"benchmark muse-news: .* could not be had"):
        load_benchmark("muse-news")
