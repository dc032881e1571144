"""Benchmarks from local directories: chunking, finding passages, and errors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sinkscope.benchmarks.benchmark import (
    BENCHMARKS,
    Lengths,
    find_passages,
    load_benchmark,
    register_benchmark,
)
from sinkscope.benchmarks.chunking import SEPARATOR
from sinkscope.benchmarks.directory import COLUMNS, required_splits
from sinkscope.errors import BenchmarkError
from sinkscope.models.model import Model
from tests.conftest import FAMILIES, TEXT


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A small benchmark in MUSE's schema: one split as parquet, one as json, all others as jsonl."""
    for config in ("raw", "knowmem", "verbmem"):
        (tmp_path / config).mkdir()
        for split in required_splits(config, Lengths().in_context):
            records = [
                {
                    column: TEXT[i : i + 300] if column == "text" else f"{column} {i}"
                    for column in COLUMNS[config]
                }
                for i in (0, 40, 80)
            ]
            path = tmp_path / config / f"{split}.jsonl"
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
    frame = pd.read_json(tmp_path / "raw" / "retain1.jsonl", lines=True)
    (tmp_path / "raw" / "retain1.jsonl").unlink()
    frame.to_parquet(tmp_path / "raw" / "retain1.parquet")
    frame = pd.read_json(tmp_path / "verbmem" / "forget.jsonl", lines=True)
    (tmp_path / "verbmem" / "forget.jsonl").unlink()
    frame.to_json(tmp_path / "verbmem" / "forget.json", orient="records")
    return tmp_path


def test_reads_jsonl_json_and_parquet_with_muse_lengths_by_default(directory: Path) -> None:
    benchmark = load_benchmark(str(directory))
    assert benchmark.lengths == Lengths(passage=2048, in_context=10, knowmem_new=32, verbmem_new=128)
    assert benchmark.texts("retain1")[1] == TEXT[40:340]
    assert benchmark.prompts("forget")[2] == {"prompt": "prompt 80", "gt": "gt 80"}
    (directory / "benchmark.json").write_text('{"lengths": {"passage": 20}}')
    assert load_benchmark(str(directory)).lengths.passage == 20


@pytest.mark.parametrize("kind", FAMILIES)
def test_passages_cover_the_joined_text_once_after_bos(
    kind: str, directory: Path, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    benchmark = replace(load_benchmark(str(directory)), lengths=Lengths(passage=20))
    passages = benchmark.passages("forget", model.tokenizer)
    text = SEPARATOR.join(benchmark.texts("forget"))
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    bos = model.bos_id
    assert [token for passage in passages for token in passage.tokens[bos is not None :]] == ids
    assert all(passage.tokens[0] == bos for passage in passages if bos is not None)
    assert max(len(passage.tokens) for passage in passages) <= 20
    assert [passage.start for passage in passages[1:]] == [
        passage.stop for passage in passages[:-1]
    ] or kind == "llama"


def test_find_passages_returns_every_passage_that_overlaps(directory: Path, small_llama: Model) -> None:
    benchmark = replace(load_benchmark(str(directory)), lengths=Lengths(passage=20))
    passages = benchmark.passages("forget", small_llama.tokenizer)
    text = SEPARATOR.join(benchmark.texts("forget"))
    middle = text[passages[2].start + 3 : passages[3].stop - 3]
    assert find_passages(text, middle, passages) == [2, 3]
    assert find_passages(text, "not in there", passages) == []


def test_a_missing_split_is_named_with_what_was_found(directory: Path) -> None:
    (directory / "knowmem" / "retain_qa.jsonl").unlink()
    with pytest.raises(
        BenchmarkError, match=r"lacks knowmem/retain_qa.*its files: .*knowmem/forget_qa.jsonl"
    ):
        load_benchmark(str(directory))


def test_in_context_questions_are_required_if_prompts_have_some(directory: Path) -> None:
    assert [row["question"] for row in load_benchmark(str(directory)).in_context("forget_qa")] == [
        "question 0",
        "question 40",
        "question 80",
    ]
    (directory / "knowmem" / "forget_qa_icl.jsonl").unlink()
    with pytest.raises(BenchmarkError, match="lacks knowmem/forget_qa_icl"):
        load_benchmark(str(directory))
    (directory / "benchmark.json").write_text('{"lengths": {"in_context": 0}}')
    assert load_benchmark(str(directory)).in_context("forget_qa") == []


def test_one_scored_configuration_is_enough_and_none_is_refused(directory: Path) -> None:
    shutil.rmtree(directory / "knowmem")
    assert not load_benchmark(str(directory)).has("knowmem", "forget_qa")
    shutil.rmtree(directory / "verbmem")
    with pytest.raises(
        BenchmarkError,
        match=r"nothing to score; give one of knowmem, verbmem, choices; "
        r"its files: raw/forget.jsonl, raw/retain1.parquet",
    ):
        load_benchmark(str(directory))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_choices_are_lists_and_their_answers_numbers(directory: Path, suffix: str) -> None:
    record = {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 2}
    (directory / "choices").mkdir()
    frame, path = pd.DataFrame([record, record | {"answer": 0}]), directory / "choices" / f"forget.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_json(
        path, orient="records", lines=suffix == "jsonl"
    )
    assert load_benchmark(str(directory)).choices("forget") == [record, record | {"answer": 0}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, r"forget.jsonl row 1: answer 4 is not one of the 4 choices"),
        ({"answer": -1}, r"row 1: answer -1 is not one"),
        ({"answer": "C"}, r"row 1: answer must be the index of a choice, counted from 0, not 'C'"),
        ({"choices": "a, b"}, r"row 1: choices must be a list of at least two texts, not 'a, b'"),
        ({"choices": None}, r"row 1: choices must be a list"),
    ],
)
def test_a_malformed_choice_is_named(directory: Path, change: dict, message: str) -> None:
    record = {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 2}
    (directory / "choices").mkdir()
    (directory / "choices" / "forget.jsonl").write_text(
        "".join(json.dumps(each) + "\n" for each in (record, record | change))
    )
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark(str(directory))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("raw/forget.jsonl", '{"body": "x"}\n', "lacks the column 'text'; its columns: body"),
        ("raw/forget.jsonl", "", "no rows|lacks the column"),
        ("raw/forget.jsonl", "{", "cannot be read"),
        ("benchmark.json", "[]", "benchmark.json cannot be read: it must hold an object"),
        ("benchmark.json", "{", "benchmark.json cannot be read: Expecting property"),
        ("benchmark.json", '{"lengths": {"pasage": 3}}', "key 'lengths.pasage' is unknown; did you mean"),
        ("benchmark.json", '{"lengths": {"passage": true}}', "lengths.passage: must be a valid integer"),
        ("benchmark.json", '{"lengths": {"passage": 1}}', r"lengths.passage: must be greater .* \(got '1'\)"),
        (
            "benchmark.json",
            '{"chunking": "slices"}',
            "chunking: must be 'joined', 'documents' or 'pairs' \\(got 'slices'\\)",
        ),
        (
            "benchmark.json",
            '{"cut": "pairs"}',
            "forget.jsonl row 0 lacks the column 'question'; its columns: text",
        ),
    ],
)
def test_bad_files_are_named(directory: Path, file: str, content: str, message: str) -> None:
    (directory / file).write_text(content)
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark(str(directory))


def test_no_directory_is_refused() -> None:
    with pytest.raises(
        BenchmarkError,
        match=r"neither a directory nor one of tiny, tiny-wmdp, muse-books, muse-news, .*tofu-forget10;",
    ):
        load_benchmark("/nowhere")


def test_a_registered_benchmark_is_loaded_by_its_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BENCHMARKS, "_values", dict(BENCHMARKS.items()))
    register_benchmark("lamps", lambda: replace(load_benchmark(str(directory)), name="lamps"))
    assert load_benchmark("lamps").name == "lamps"
    with pytest.raises(BenchmarkError, match="benchmark 'lamps' is registered twice"):
        register_benchmark("lamps", lambda: load_benchmark("tiny"))


def test_files_are_read_as_the_hub_names_them_and_as_json_lines(directory: Path) -> None:
    expected = load_benchmark(str(directory))
    verbmem = directory / "verbmem" / "forget.json"
    pd.read_json(verbmem).to_json(verbmem, orient="records", lines=True)
    raw = directory / "raw" / "retain1.parquet"
    raw.rename(raw.with_name("retain1-00000-of-00001.parquet"))
    assert load_benchmark(str(directory)) == expected


@pytest.mark.parametrize("answer", [1, "1", "B"])
def test_choices_can_be_texts_with_labels(answer: object, directory: Path) -> None:
    labelled = {"text": ["a mill", "a wall"], "label": ["A", "B"]}
    path = directory / "choices" / "forget.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"question": "where?", "choices": labelled, "answer": answer}))
    assert load_benchmark(str(directory)).choices("forget") == [
        {"question": "where?", "choices": ["a mill", "a wall"], "answer": 1}
    ]
