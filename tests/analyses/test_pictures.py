"""Every picture of the paper and its interactive counterpart: drawn without a warning, in the same colors; what a study lacks is left out and told."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from typer.testing import CliRunner

from sinkscope.cli.main import app, main
from sinkscope.figures import PICTURES, draw_all, script
from sinkscope.plots.style import COLORS, PAGE
from sinkscope.studies.claims import judge
from sinkscope.studies.paper_claims import paper_claims
from sinkscope.studies.study import Study
from tests.figures.fake import altered, fake_study
from tests.figures.fake_following import OF

ANALYSES = Path(__file__).parents[2] / "analyses"
PAPER = [name for name in PICTURES if name not in OF]
TABLES = ("table1", "table2", "masking")


pytestmark = pytest.mark.usefixtures("strict_pictures")


@pytest.fixture(scope="module")
def meagre(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with the grids of table 2 and `target`, and no others."""
    return fake_study(
        tmp_path_factory.mktemp("meagre") / "study", [0], only=["target", *PICTURES["table2"].needs]
    )


def _colors(figure: Figure) -> set[str]:
    """Colors of all lines, bars, points and bands."""
    found = []
    for axis in figure.axes:
        found += [line.get_color() for line in axis.lines]
        found += [patch.get_facecolor() for patch in axis.patches]
        found += [
            color
            for collection in axis.collections
            for color in [*collection.get_edgecolor(), *collection.get_facecolor()]
        ]
    return {to_hex(color) for color in found}


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", PAPER)
def test_picture_and_twin(studies: dict[int, Study], tmp_path: Path, name: str, n: int) -> None:
    picture = PICTURES[name]
    frame = picture.frame(studies[n])
    figure = picture.draw(frame)
    figure.savefig(tmp_path / "picture.pdf")
    assert figure.get_figwidth() <= PAGE
    assert int(frame["seeds"].max()) == n
    caption = " ".join(figure.get_suptitle().split())
    assert "n = " in caption and ("one seed" if n == 1 else "5 seeds") in caption
    twin = picture.twin(frame).to_json()
    known = {shade for shade in COLORS.values() if shade in _colors(figure)}
    assert known or name == "attention_difference"
    assert not {shade for shade in known if shade not in twin.lower()}
    assert not {shade for shade in COLORS.values() if shade in twin.lower()} - _colors(figure)


@pytest.mark.parametrize("name", PAPER)
def test_frames_have_what_a_reader_needs(studies: dict[int, Study], name: str) -> None:
    columns = set(PICTURES[name].frame(studies[5]).columns)
    assert {"value", "ci_low", "ci_high", "n", "seeds"} <= columns or {
        "x",
        "x_low",
        "x_high",
        "x_n",
        "y",
        "y_low",
        "y_high",
        "y_n",
        "seeds",
    } <= columns


def test_all_are_written(studies: dict[int, Study], tmp_path: Path) -> None:
    written, skipped = draw_all(studies[1], tmp_path)
    assert set(skipped) == set(OF)
    assert set(written) == {f"{name}.{kind}" for name in PAPER for kind in ("png", "pdf", "csv")} | {
        f"{name}.md" for name in TABLES
    }
    assert set(written) == {path.name for path in tmp_path.iterdir()}
    numbers = PICTURES["control"].frame(studies[1])
    assert pd.read_csv(tmp_path / "control.csv")["value"].tolist() == pytest.approx(
        numbers["value"].tolist(), rel=1e-5
    )


def test_missing_grids_are_told(meagre: Study, tmp_path: Path) -> None:
    written, skipped = draw_all(meagre, tmp_path)
    assert written == [f"table2.{kind}" for kind in ("png", "pdf", "csv", "md")]
    assert set(skipped) == set(PICTURES) - {"table2"}
    assert (
        skipped["control"]
        == f"study {meagre.directory} has no grid 'unlearned', 'position', 'control', 'control-unlearned', which control needs"
    )


def test_a_study_that_asked_otherwise_loses_only_what_rests_on_it(
    studies: dict[int, Study], tmp_path: Path
) -> None:
    """The target was asked for VerbMem alone, and nothing was captured behind a prefix; figures, claims and the page say so."""

    def elsewhere(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["placement"] != "prefix"]

    def verbatim(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["grid"] != "target") | (rows["metric"] == "verbmem")]

    study = altered(
        studies[5],
        tmp_path / "study",
        scores=verbatim,
        maps=elsewhere,
        top1=elsewhere,
        attention=elsewhere,
        passage=elsewhere,
    )
    written, skipped = draw_all(study, tmp_path / "figures")
    assert "control.png" in written and {"trigger_position", "top1"} <= set(skipped)
    assert all(str(study.directory) in reason and "\n" not in reason for reason in skipped.values())
    claims = judge(study, paper_claims())
    assert (
        len(claims) == len(judge(studies[5], paper_claims()))
        and not claims["reason"].str.contains("\n").any()
    )


def test_command(meagre: Study, tmp_path: Path) -> None:
    asked = ["figures", str(meagre.directory), "--out", str(tmp_path)]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0
    assert f"{tmp_path / 'table2.png'}" in told.output and "skipped table1: " in told.output
    answer = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert set(answer) == {"out", "written", "skipped"} and set(answer["skipped"]) == set(PICTURES) - {
        "table2"
    }


def test_command_without_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sinkscope", "figures", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr() == (
        "",
        f"sinkscope: {tmp_path} holds no finished study (no run.json of one); run `sinkscope study SPEC --out {tmp_path}` first\n",
    )


@pytest.mark.parametrize("name", PAPER)
def test_every_picture_has_its_script(
    studies: dict[int, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(studies[1].directory), "--out", str(tmp_path)])
    runpy.run_path(str(ANALYSES / f"{name}.py"), run_name="__main__")
    assert {path.name for path in tmp_path.iterdir()} >= {f"{name}.png", f"{name}.pdf", f"{name}.csv"}


def test_script_says_what_is_missing(
    meagre: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        script("control", [str(meagre.directory), "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("control: study ")
