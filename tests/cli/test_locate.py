"""`sinkscope locate` on small models: tables, figures, kinds of text, backends, a fraction of the queries."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from sinkscope.models.model import load
from sinkscope.sinks.locate import locate_passage
from sinkscope.text import tokenize_passages
from tests.commands import check_refused, run
from tests.conftest import TEXT


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_locate_writes_tables_and_pictures(kind, checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    code, stdout, _ = run(
        capsys,
        monkeypatch,
        "locate",
        checkpoints[kind],
        "--text",
        notes,
        "--max-length",
        40,
        "--out",
        out,
        "--json",
    )
    assert code == 0
    summary = json.loads(stdout)
    frame = pd.read_parquet(out / "sinks.parquet")
    assert len(frame) == 3 * 4 * 40
    assert summary["first_position_alpha"] == pytest.approx(frame[frame["position"] == 0]["alpha"].mean())
    maps = ("head_map", "head_map_entropy")
    for name in ("atlas", "received_attention", "value_norms", "token_strip", *maps):
        assert {(out / "figures" / f"{name}.{suffix}").stat().st_size > 500 for suffix in ("png", "pdf")} == {
            True
        }
        assert len(pd.read_csv(out / "figures" / f"{name}.csv")) > 0
    written = (out / "run.json").read_bytes()
    code, stdout, _ = run(
        capsys,
        monkeypatch,
        "locate",
        checkpoints[kind],
        "--text",
        notes,
        "--max-length",
        40,
        "--out",
        out,
        "--json",
    )
    assert code == 0
    assert json.loads(stdout) == summary
    assert (out / "run.json").read_bytes() == written, "a finished run is left as it is"


def test_chosen_heads_get_maps_and_strips(notes, tmp_path, capsys, monkeypatch) -> None:
    """Long passages in bins: cells of a query bin sum to one; a strip's α is that of its passage."""
    out = tmp_path / "out"
    heads = ["--head", "3:1", "--head", "0:2", "--head", "3:1"]
    code, _, err = run(
        capsys, monkeypatch, "locate", "tiny", "--text", notes, "--max-length", 300, *heads, "--out", out
    )
    assert code == 0, err
    names = {path.stem for path in (out / "figures").glob("*.png")}
    chosen = {f"{kind}_{head}" for kind in ("head_map", "token_strip") for head in ("3_1", "0_2")}
    assert names == {"atlas", "received_attention", "value_norms", "token_strip"} | chosen
    cells = pd.read_csv(out / "figures" / "head_map_3_1.csv")
    assert list(cells.columns) == ["query", "key", "attention"]
    assert cells["query"].max() == 295, "bins of five"
    np.testing.assert_allclose(cells.groupby("query")["attention"].sum(), 1, atol=1e-4)
    strip = pd.read_csv(out / "figures" / "token_strip_3_1.csv", keep_default_na=False)
    assert list(strip.columns) == ["position", "token", "alpha"]
    model = load("tiny")
    passage = tokenize_passages([TEXT], model, 300)[0]
    expected = locate_passage(model, passage).alpha.sel(layer=3, head=1).values
    np.testing.assert_allclose(strip["alpha"], expected, atol=1e-5)
    assert "".join(strip["token"][1:40]).replace("␣", " ").strip() in TEXT


def test_three_kinds_of_text_give_the_same_passages(
    checkpoints, notes, tmp_path, capsys, monkeypatch
) -> None:
    jsonl = tmp_path / "notes.jsonl"
    jsonl.write_text(json.dumps({"text": TEXT}) + "\n\n", encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(notes, folder / "a.txt")
    frames = []
    for i, source in enumerate((notes, jsonl, folder)):
        code, _, err = run(
            capsys,
            monkeypatch,
            "locate",
            checkpoints["llama"],
            "--text",
            source,
            "--out",
            tmp_path / f"out{i}",
        )
        assert code == 0, err
        frames.append(pd.read_parquet(tmp_path / f"out{i}" / "sinks.parquet"))
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])


def test_both_backends_write_the_same_tables(checkpoints, notes, tmp_path, capsys, monkeypatch) -> None:
    tables = {}
    for source in ("hooks", "tiled"):
        out = tmp_path / source
        options = [
            "--text",
            notes,
            "--max-length",
            40,
            "--backend",
            source,
            "--stats",
            "entropy",
            "--out",
            out,
            "--json",
        ]
        code, stdout, err = run(capsys, monkeypatch, "locate", checkpoints["llama"], *options)
        assert code == 0, err
        assert json.loads(stdout)["backend"] == source
        tables[source] = [
            pd.read_parquet(out / f"{name}.parquet")
            for name in ("sinks", "sink_tokens", "token_kinds", "massive_activations")
        ]
    assert list(tables["hooks"][0].columns) == [
        "layer",
        "head",
        "position",
        "alpha",
        "sink_rate",
        "value_norm",
        "weighted_norm",
        "entropy",
        "uniform",
    ]
    for one, other in zip(*tables.values(), strict=True):
        pd.testing.assert_frame_equal(one, other, atol=1e-5, rtol=1e-4)
    for option, message in (
        ("--backend", "'x' is not one of 'hooks', 'tiled'"),
        ("--stats", "statistic 'x' is unknown"),
    ):
        outcome = run(
            capsys,
            monkeypatch,
            "locate",
            checkpoints["llama"],
            "--text",
            notes,
            option,
            "x",
            "--out",
            tmp_path / "bad",
        )
        check_refused(outcome, message, tmp_path / "bad")


def test_locate_reads_a_share_of_the_rows(notes, tmp_path, capsys, monkeypatch) -> None:
    def located(*options: object) -> tuple[dict, pd.DataFrame, set[str]]:
        out = tmp_path / "-".join(map(str, options))
        code, stdout, err = run(
            capsys,
            monkeypatch,
            "locate",
            "tiny",
            "--text",
            notes,
            "--max-length",
            300,
            *options,
            "--out",
            out,
            "--json",
        )
        assert code == 0, err
        return (
            json.loads(stdout),
            pd.read_parquet(out / "sinks.parquet"),
            {path.name for path in out.glob("*.parquet")},
        )

    (_, exact, _), (summary, tenth, files), (_, other, _) = (
        located("--backend", "tiled"),
        located("--query-fraction", 0.1),
        located("--query-fraction", 0.1, "--seed", 1),
    )
    assert (summary["backend"], summary["query_fraction"], summary["seed"]) == ("tiled", 0.1, 0)
    assert "first_position_sink_rate" not in summary
    assert list(tenth.columns) == [
        "layer",
        "head",
        "position",
        "alpha",
        "alpha_low",
        "alpha_high",
        "value_norm",
        "weighted_norm",
        "uniform",
    ]
    assert files == {
        "sinks.parquet",
        "passage.parquet",
        "massive_activations.parquet",
    }  # the other tables need every query
    known = tenth["alpha"].notna()
    assert 0.4 < known.mean() < 1
    assert (tenth["alpha"] - exact["alpha"])[known].abs().max() < 0.2
    assert not tenth["alpha"].equals(other["alpha"])
    assert tenth["value_norm"].sub(exact["value_norm"]).abs().max() < 1e-4
    for options, message in (
        (["--query-fraction", 0], "above 0 and at most 1"),
        (["--query-fraction", "nan"], "above 0 and at most 1"),
        (["--query-fraction", 0.1, "--backend", "hooks"], "leave out --query-fraction"),
        (["--epsilon", "nan"], "--epsilon nan is out of range"),
        (["--device", "cuda:77"], "device 'cuda:77' cannot be used ("),
        (["--device", "toaster"], "device 'toaster' cannot be used ("),
    ):
        outcome = run(
            capsys, monkeypatch, "locate", "tiny", "--text", notes, *options, "--out", tmp_path / "bad"
        )
        check_refused(outcome, message, tmp_path / "bad")
