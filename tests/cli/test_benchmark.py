"""`sinkscope benchmark check`: what a benchmark holds, and what a model scores on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sinkscope.evaluation.metrics import METRICS
from tests.commands import run

EXAMPLE = Path(__file__).parents[2] / "data" / "example"


def test_the_example_has_twelve_passages_a_side(capsys, monkeypatch) -> None:
    code, stdout, err = run(capsys, monkeypatch, "benchmark", "check", EXAMPLE, "--model", "tiny", "--json")
    assert code == 0, err
    contents = json.loads(stdout)
    assert contents["passages"] == {"forget": 12, "retain1": 12}
    assert contents["items"]["knowmem"] == {"forget_qa": 48, "retain_qa": 48}
    assert contents["items"]["verbmem"] == {"forget": 12, "retain": 12}
    assert contents["items"].keys() | contents["not_measured"].keys() == set(METRICS)
    assert "choices/forget" in contents["not_measured"]["choice"]
    assert {"raw/holdout", "privleak/forget"} <= set(contents["absent"])
    assert {row["metric"] for row in contents["scores"]} >= {"verbmem", "knowmem"}
    assert all(row["n"] in (12, 48) for row in contents["scores"])


def test_without_a_model_the_records_are_counted(capsys, monkeypatch) -> None:
    code, stdout, err = run(capsys, monkeypatch, "benchmark", "check", EXAMPLE)
    assert code == 0, err
    assert "records: raw/forget 12, raw/retain1 12, " in stdout
    assert "knowmem: forget_qa 48, retain_qa 48 items" in stdout
    assert "choice: not measured; it needs choices/forget or choices/retain" in stdout


def test_missing_answered_questions_name_the_setting(tmp_path: Path, capsys, monkeypatch) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    (tmp_path / "mine" / "benchmark.json").unlink()
    code, _, err = run(capsys, monkeypatch, "benchmark", "check", tmp_path / "mine")
    assert code == 2
    assert "lacks knowmem/forget_qa_icl.jsonl" in err
    assert "or set lengths.in_context to 0 in benchmark.json" in err


def test_passages_of_text_are_counted_with_a_model_alone(tmp_path: Path, capsys, monkeypatch) -> None:
    """Also where one split of a metric comes from another configuration."""
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    shutil.copy(EXAMPLE / "raw" / "retain1.jsonl", tmp_path / "mine" / "raw" / "holdout.jsonl")
    (tmp_path / "mine" / "privleak").mkdir()
    shutil.copy(EXAMPLE / "raw" / "forget.jsonl", tmp_path / "mine" / "privleak" / "forget.jsonl")
    code, stdout, err = run(capsys, monkeypatch, "benchmark", "check", tmp_path / "mine", "--json")
    assert code == 0, err
    assert json.loads(stdout)["items"]["perplexity"] == {"holdout": None}
    options = ("--model", "tiny", "--limit", 2, "--json")
    code, stdout, err = run(capsys, monkeypatch, "benchmark", "check", tmp_path / "mine", *options)
    assert code == 0, err
    assert json.loads(stdout)["items"]["perplexity"]["holdout"] > 0
