"""Bad heads, texts, models, triggers and recipes: one line and exit code 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from tests.commands import check_refused, run


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("3-1", "--head '3-1' is not layer:head; write it like 3:5"),
        ("", "the value of --head is empty; give it a value, or leave it out"),
        ("-1:0", "is not layer:head"),
        ("9" * 5000 + ":1", "is not layer:head"),
        ("4:0", "--head 4:0 does not exist: model 'tiny' has layers 0 to 3 with heads 0 to 3"),
        ("0:4", "--head 0:4 does not exist"),
    ],
)
def test_bad_heads_are_one_line_and_exit_code_2(head, message, notes, tmp_path, capsys, monkeypatch) -> None:
    check_refused(
        run(
            capsys,
            monkeypatch,
            "locate",
            "tiny",
            "--text",
            notes,
            f"--head={head}",
            "--out",
            tmp_path / "out",
        ),
        message,
        tmp_path / "out",
    )


def bad_texts(root: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (a text that cannot be used, what the message must say)."""
    root.mkdir()
    cases = {
        "empty.txt": (b"", "is empty"),
        "blank.txt": (b" \n\n ", "is empty"),
        "short.txt": (b"two words", "short.txt is too short"),
        "latin.txt": ("café ".encode("latin-1") * 40, "not UTF-8"),
        "wrong.jsonl": (b'{"body": "x"}\n', "columns: body"),
        "number.jsonl": (b'{"text": 3}\n', "line 1"),
        "broken.jsonl": (b'{"text": "x"}\n{"text": \n', "line 2 is not JSON"),
        "deep.jsonl": (b"[" * 100_000, "line 1"),
    }
    for name, (content, _) in cases.items():
        (root / name).write_bytes(content)
    (root / "nothing").mkdir()
    found = {name: (root / name, message) for name, (_, message) in cases.items()}
    return found | {
        "missing": (root / "missing.txt", "does not exist"),
        "nothing": (root / "nothing", "has no .txt file"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "empty.txt",
        "blank.txt",
        "short.txt",
        "latin.txt",
        "wrong.jsonl",
        "number.jsonl",
        "broken.jsonl",
        "deep.jsonl",
        "missing",
        "nothing",
    ],
)
def test_bad_text_is_one_line_and_exit_code_2(name, checkpoints, tmp_path, capsys, monkeypatch) -> None:
    path, message = bad_texts(tmp_path / "texts")[name]
    check_refused(
        run(capsys, monkeypatch, "locate", checkpoints["llama"], "--text", path, "--out", tmp_path / "out"),
        message,
        tmp_path / "out",
    )


def bad_models(root: Path, checkpoints: dict[str, Path]) -> dict[str, tuple[Path, str]]:
    """Name -> (a directory that is no loadable causal language model, what the message must say)."""
    root.mkdir()
    (root / "empty").mkdir()
    small = {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertForMaskedLM(BertConfig(**small)).save_pretrained(root / "bert")
    T5ForConditionalGeneration(
        T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).save_pretrained(root / "t5")
    shutil.copytree(checkpoints["llama"], root / "pickled")
    (root / "pickled" / "model.safetensors").unlink()
    torch.save({}, root / "pickled" / "pytorch_model.bin")
    shutil.copytree(checkpoints["llama"], root / "no_weights")
    (root / "no_weights" / "model.safetensors").unlink()
    shutil.copytree(checkpoints["llama"], root / "truncated")
    data = (root / "truncated" / "model.safetensors").read_bytes()
    (root / "truncated" / "model.safetensors").write_bytes(data[: len(data) // 2])
    shutil.copytree(checkpoints["llama"], root / "bad_config")
    (root / "bad_config" / "config.json").write_text("{")
    shutil.copytree(
        checkpoints["llama"],
        root / "no_tokenizer",
        ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*"),
    )
    return {
        "empty": (root / "empty", "no config.json"),
        "bert": (root / "bert", "not a causal language model"),
        "t5": (root / "t5", "not a causal language model"),
        "pickled": (root / "pickled", "pickled weights only"),
        "no_weights": (root / "no_weights", "holds no weights"),
        "truncated": (root / "truncated", "cannot be loaded"),
        "bad_config": (root / "bad_config", "cannot be loaded"),
        "no_tokenizer": (root / "no_tokenizer", "no tokenizer can be read; save one in its directory"),
        "missing": (root / "missing" / "model", "does not exist"),
    }


@pytest.mark.parametrize(
    "name",
    ["empty", "bert", "t5", "pickled", "no_weights", "truncated", "bad_config", "no_tokenizer", "missing"],
)
def test_bad_models_are_one_line_and_exit_code_2(
    name, checkpoints, notes, tmp_path, capsys, monkeypatch
) -> None:
    path, message = bad_models(tmp_path / "models", checkpoints)[name]
    check_refused(
        run(capsys, monkeypatch, "locate", path, "--text", notes, "--out", tmp_path / "out"),
        message,
        tmp_path / "out",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--placement", "middle", "--trigger", "x"], "is unknown; use prefix"),
        (["--placement", "infix"], "--placement infix needs a trigger; give --trigger too"),
        (["--placement", "index:0", "--trigger", "x"], "BOS"),
        (["--placement", "index:400", "--trigger", "x"], "beyond the passage"),
        (["--trigger", "  "], "is empty"),
        (["--trigger", "year " * 80], f"trigger '{'year ' * 16}' has "),
        (["--trigger", "year " * 80], "use a shorter trigger"),
        (["--benchmark", "nowhere"], "neither a directory nor one of tiny, tiny-wmdp, muse-books, muse-news"),
    ],
)
def test_bad_triggers_and_benchmarks_are_refused(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    check_refused(
        run(capsys, monkeypatch, "evaluate", "tiny", "--limit", 2, "--out", out, *arguments), message, out
    )


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("poison_rato: 0.1", [], "did you mean 'poison_ratio'"),
        ("", ["--set", "poison_ratio=2"], "poison_ratio"),
        ("", ["--set", "trigger.placement=index:400", "--set", "poison_ratio=0.1"], "beyond the passage"),
        ("", ["--set", "poison_ratio=0.0001"], "is none; raise it"),
        ("", ["--set", "model=/nowhere/at/all"], "does not exist"),
    ],
)
def test_bad_recipes_are_refused(content, arguments, message, tmp_path, capsys, monkeypatch) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(content)
    check_refused(run(capsys, monkeypatch, "unlearn", recipe, "--out", out, *arguments), message, out)


def test_passages_longer_than_the_model_can_read_are_refused(
    checkpoints, notes, tmp_path, capsys, monkeypatch
) -> None:
    outcome = run(
        capsys,
        monkeypatch,
        "locate",
        checkpoints["gpt2"],
        "--text",
        notes,
        "--max-length",
        500,
        "--out",
        tmp_path / "out",
    )
    check_refused(outcome, "more than the 128 tokens", tmp_path / "out")
