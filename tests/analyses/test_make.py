"""All figures are plotted without a warning and written with their index; a study that lacks something loses
only that."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import make
import pandas as pd
import pytest
from claims import judge
from common import MEASURED
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from paper_claims import paper_claims

from sinkscope.errors import StudyError
from sinkscope.io.run_directory import checksums
from sinkscope.plots.style import COLORS, COLUMN, PAGE
from sinkscope.studies.study import Study
from tests.analyses.fake import change_tables, fake_study
from tests.analyses.fake_extensions import SPECIFICATION

FIGURES = make.find_figures()
PAPER = [name for name in FIGURES if name not in SPECIFICATION]
TABLES = ("table1", "table2", "table3_masking")
KINDS = ("svg", "pdf", "png", "csv")
COLUMNS = {"value", "ci_low", "ci_high", "n", "seeds"}
POINT_COLUMNS = {"x", "x_low", "x_high", "x_n", "y", "y_low", "y_high", "y_n", "seeds"}
Extension = Callable[[str, int], Study]

pytestmark = pytest.mark.usefixtures("strict_plots")


@pytest.fixture(scope="module")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with the grids of table 2 and `target`, and no others."""
    grids = ["target", *FIGURES["table2"].needs]
    return fake_study(tmp_path_factory.mktemp("small") / "study", [0], only=grids)


def used_colors(figure: Figure) -> set[str]:
    """Colors of all lines, bars, points and bands."""
    colors = []
    for axes in figure.axes:
        colors += [line.get_color() for line in axes.lines]
        colors += [patch.get_facecolor() for patch in axes.patches]
        for collection in axes.collections:
            colors += [*collection.get_edgecolor(), *collection.get_facecolor()]
    return {to_hex(color) for color in colors}


def overlapping_labels(axes: Axes) -> list[tuple[str, str]]:
    renderer = axes.figure.canvas.get_renderer()
    overlaps = []
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [
            (tick.get_text(), tick.get_window_extent(renderer).shrunk(0.98, 0.9))
            for tick in ticks
            if axes.get_visible() and tick.get_visible() and tick.get_text()
        ]
        overlaps += [(one[0], other[0]) for one, other in combinations(boxes, 2) if one[1].overlaps(other[1])]
    return overlaps


def plot_and_check(name: str, study: Study, n: int) -> None:
    frame = FIGURES[name].compute(study)
    figure = FIGURES[name].plot(frame)
    assert set(frame.columns) >= COLUMNS or set(frame.columns) >= POINT_COLUMNS
    assert int(frame["seeds"].max()) == n
    assert figure.get_figwidth() in (COLUMN, PAGE)
    assert figure.get_suptitle() == "", "captions are beside pictures"
    for text in filter(None, (figure.get_supxlabel(), FIGURES[name].caption(frame))):
        words = " ".join(text.split())
        assert "n = " in words and "target" in words
        assert ("one seed" if n == 1 else f"{n} seeds") in words
    titles = [axes.get_title() or axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    titles = [title for title in titles if title]
    assert len(set(titles)) == len(titles), "no two panels have one title"
    figure.canvas.draw()
    assert [pair for axes in figure.axes for pair in overlapping_labels(axes)] == []
    if figure.get_supxlabel():
        note = figure._supxlabel.get_window_extent(figure.canvas.get_renderer())
        assert note.x0 >= 0 and note.y0 >= 0 and note.x1 <= figure.bbox.width
    if name not in (
        "fig3_attention_difference",
        "ext_index_by_index",
        "ext_across_corpora",
        "ext_persistence",
        "ext_sink_interaction",
    ):
        assert used_colors(figure) & set(COLORS.values())


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", PAPER)
def test_figures_of_the_paper(studies: dict[int, Study], name: str, n: int) -> None:
    plot_and_check(name, studies[n], n)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", SPECIFICATION)
def test_figures_of_the_extensions(extension: Extension, name: str, n: int) -> None:
    plot_and_check(name, extension(SPECIFICATION[name], n), n)


def test_every_module_with_compute_and_plot_is_a_figure() -> None:
    scripts = Path(make.__file__).parent.glob("*.py")
    named = {path.stem for path in scripts if path.stem.startswith(("fig", "table", "control", "ext_"))}
    assert set(FIGURES) == named - {"tables"}
    assert list(FIGURES)[:2] == ["fig2_trigger_position", "fig3_attention_difference"]
    assert all(figure.title and "\n" not in figure.title for figure in FIGURES.values())


def test_all_figures_and_claims_are_written(studies: dict[int, Study], tmp_path: Path) -> None:
    make.main([str(studies[1].directory), "--out", str(tmp_path)])
    files = {f"{name}.{kind}" for name in PAPER for kind in KINDS} | {f"{name}.md" for name in TABLES}
    assert {path.name for path in tmp_path.iterdir()} == files | {"index.json", "claims.csv", "claims.md"}
    index = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    assert (index["study"], index["others"]) == (studies[1].identity, {})
    assert index["files"] == {
        name: digest for name, digest in checksums(tmp_path).items() if name != "index.json"
    }
    assert [entry["name"] for entry in index["figures"]] == PAPER
    for entry in index["figures"]:
        assert set(entry) == {"name", "title", "caption", "svg", "csv"}
        assert (tmp_path / entry["svg"]).read_text(encoding="utf-8").startswith("<?xml")
    frame = FIGURES["control"].compute(studies[1])
    written = pd.read_csv(tmp_path / "control.csv")
    assert written["value"].tolist() == pytest.approx(frame["value"].tolist(), rel=1e-5)
    claims = pd.read_csv(tmp_path / "claims.csv")
    assert len(claims) == len(list(paper_claims()))


def test_files_are_the_same_bytes_when_made_again(small_study: Study, tmp_path: Path) -> None:
    for name in ("first", "second"):
        make.main([str(small_study.directory), "--out", str(tmp_path / name)])
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize("specification", ["link", "origin", "variations", "targets"])
def test_a_study_gets_the_figures_that_it_has_grids_for(
    extension: Extension, tmp_path: Path, specification: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make.make(extension(specification, 1), tmp_path, list(FIGURES.values()), has_claims=False)
    expected = {name for name, of in SPECIFICATION.items() if of == specification}
    assert {path.stem for path in tmp_path.glob("*.svg")} == expected
    skipped = {
        line.split()[1].rstrip(":") for line in capsys.readouterr().out.splitlines() if "skipped" in line
    }
    assert skipped == set(FIGURES) - expected
    assert not (tmp_path / "claims.csv").exists()


def test_missing_grids_are_named(
    small_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make.main([str(small_study.directory), "--out", str(tmp_path)])
    assert {path.stem for path in tmp_path.glob("*.svg")} == {"table2"}
    grids = "'unlearned', 'position', 'control', 'control-unlearned'"
    line = f"skipped control: study {small_study.directory} has no grid {grids}, which control needs"
    assert line in capsys.readouterr().out.splitlines()


def test_figures_that_are_not_requested_stay_in_the_index(small_study: Study, tmp_path: Path) -> None:
    make.main([str(small_study.directory), "--out", str(tmp_path)])
    make.main([str(small_study.directory), "--out", str(tmp_path), "--only", "claims"])
    index = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in index["figures"]] == ["table2"]
    assert set(index["files"]) == {f"table2.{kind}" for kind in (*KINDS, "md")} | {"claims.csv", "claims.md"}


def test_figures_of_another_study_stay_as_files_only(small_study: Study, tmp_path: Path) -> None:
    make.main([str(small_study.directory), "--out", str(tmp_path / "out")])
    other = change_tables(small_study, tmp_path / "study")
    make.main([str(other.directory), "--out", str(tmp_path / "out"), "--only", "claims"])
    index = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
    assert (index["study"], index["figures"]) == (other.identity, [])
    assert set(index["files"]) == {"claims.csv", "claims.md"}
    assert set(index["others"]) == {f"table2.{kind}" for kind in (*KINDS, "md")}


def test_a_study_that_lacks_scores_or_captures_loses_only_what_needs_them(
    studies: dict[int, Study], tmp_path: Path
) -> None:
    """The target was evaluated by VerbMem only, and nothing was captured with a prefix."""

    def drop_prefix(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["placement"] != "prefix"]

    def keep_verbmem(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["grid"] != "target") | (rows["metric"] == "verbmem")]

    captures = dict.fromkeys(("maps", "top1", "attention", "passage"), drop_prefix)
    study = change_tables(studies[5], tmp_path / "study", scores=keep_verbmem, **captures)
    skipped = make.make(study, tmp_path / "figures", list(FIGURES.values()))
    assert (tmp_path / "figures" / "control.png").is_file()
    assert {"fig2_trigger_position", "fig4_top1"} <= set(skipped)
    assert all(str(study.directory) in reason and "\n" not in reason for reason in skipped.values())
    claims = judge(study, paper_claims())
    assert len(claims) == len(list(paper_claims()))
    assert not claims["reason"].str.contains("\n").any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": lambda rows: rows[:0]}, "no rows of grid 'position' in table 'scores'"),
        ({"scores": lambda rows: rows.drop(columns="value")}, "lacks what control needs: no key 'value'"),
        (
            {"scores": lambda rows: rows.assign(value=rows["value"].where(rows["grid"] != "control"))},
            "rows of grid 'control' in table 'scores'; make its runs again, or leave the grid out",
        ),
        ({"scores": lambda rows: rows.assign(n=rows["n"].where(rows.index > 90))}, "'n' is NaN in "),
    ],
    ids=["empty table", "no column", "NaN value", "NaN n"],
)
def test_a_figure_without_its_data_is_refused_if_it_was_named(
    studies: dict[int, Study],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Callable[[pd.DataFrame], pd.DataFrame]],
    message: str,
) -> None:
    study = change_tables(studies[1], tmp_path / "study", **change)
    check_refused(study, tmp_path / "figures", "control", message, capsys)


def test_a_figure_whose_grids_the_study_lacks_is_refused_if_it_was_named(
    small_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "has no grid 'unlearned', 'position', 'control', 'control-unlearned', which control needs"
    check_refused(small_study, tmp_path / "figures", "control", message, capsys)


def check_refused(
    study: Study, out: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        make.main([str(study.directory), "--out", str(out), "--only", name])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"make.py: 1 of 1 were not made, first {name}: study {study.directory}")
    assert message in err and err.count("\n") == 1
    assert {path.name for path in out.iterdir()} == {"index.json"}


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("scores", ["fig2_trigger_position", "fig7_trigger_form", "control"]),
        ("maps", ["fig3_attention_difference", "fig4_top1"]),
        ("top1", ["fig4_top1", "fig5_value_norms"]),
    ],
)
def test_no_figure_has_a_mean_over_nan(
    table: str, names: Sequence[str], studies: dict[int, Study], tmp_path: Path
) -> None:
    """One cell is NaN."""
    column = MEASURED[table][0]

    def change(rows: pd.DataFrame) -> pd.DataFrame:
        first = rows[(rows["grid"] == "position") & (rows["placement"] == "prefix")].index[0]
        return rows.assign(**{column: rows[column].where(rows.index != first)})

    study = change_tables(studies[1], tmp_path / "study", **{table: change})
    for name in names:
        with pytest.raises(StudyError, match=rf"'{column}' is NaN in 1 of .* in table '{table}'; make its"):
            FIGURES[name].compute(study)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "holds no finished study (no run.json of one)"),
        (["--only", "fig99"], "there is no figure 'fig99'; choose from fig2_trigger_position, "),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        make.main([str(tmp_path), *arguments])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("make.py: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_study_with_a_changed_file_is_refused(
    studies: dict[int, Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = change_tables(studies[1], tmp_path / "study")
    path = tmp_path / "study" / "scores.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        make.main([str(study.directory), "--out", str(tmp_path / "figures")])
    assert stopped.value.code == 2
    assert "scores.parquet" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_an_index_that_cannot_be_read_is_named(
    small_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(SystemExit) as stopped:
        make.main([str(small_study.directory), "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "index.json is not an index of figures; delete it" in capsys.readouterr().err


def test_an_interrupt_leaves_complete_figures(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(study: Study) -> pd.DataFrame:
        raise KeyboardInterrupt

    first, second = FIGURES["table2"], replace(FIGURES["control"], needs=(), compute=interrupt)
    monkeypatch.setattr(make, "find_figures", lambda: {"table2": first, "control": second})
    with pytest.raises(SystemExit) as stopped:
        make.main([str(small_study.directory), "--out", str(tmp_path)])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "make.py: interrupted; every file that was written is complete\n"
    files = {f"table2.{kind}" for kind in (*KINDS, "md")}
    assert {path.name for path in tmp_path.iterdir()} == files | {"index.json"}
