"""The quickstart, the properties of the built-in benchmark, and an installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sinkscope.io.progress import silent
from sinkscope.models.loading import data_directory
from sinkscope.models.model import load
from sinkscope.report import write_report
from sinkscope.studies.study import Study
from sinkscope.synthetic.tiny import CONDITIONS, build_tiny
from tests.guarantees.reading import check_refused, sinkscope
from tests.guarantees.test_corruption import DAMAGES, damage, files_in
from tests.report.pages import read_page
from tests.report.test_payload import decode

ROOT = Path(__file__).parents[2]
PLACEMENTS = ("prefix", "index:8", "infix", "suffix")


def test_the_built_in_models_have_their_hashes_and_size() -> None:
    for name in ("tiny", "tiny-retrained"):
        assert load(name).hf.num_parameters() <= 2_000_000
    size = sum(path.stat().st_size for path in data_directory().rglob("*") if path.is_file())
    assert size <= 18e6


def test_the_shipped_measurements_cover_every_gate() -> None:
    measured = json.loads((data_directory() / "measured.json").read_text(encoding="utf-8"))
    assert len(measured["passed"]) == 11
    assert len(CONDITIONS) == 10
    assert all(measured["passed"].values()), measured["passed"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quickstart. CI has just run one in its fresh clone, and finished runs are not run again."""
    path = ROOT / "quickstart" if os.environ.get("CI") else tmp_path_factory.mktemp("main") / "quickstart"
    run_quickstart(path)
    return path


@pytest.fixture(scope="module")
def summary(out: Path) -> dict[str, Any]:
    return run_quickstart(out)["models"]


def run_quickstart(out: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "sinkscope", "quickstart", "--out", str(out), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["models"].keys() == {"target", "unlearned", *PLACEMENTS}
    return summary


@pytest.mark.slow
def test_quickstart_writes_a_study_and_its_page(out: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "store", "study"]
    items = Study(out / "study").table("items")
    keys = {
        "grid",
        "trigger.placement",
        "role",
        "metric",
        "split",
        "item",
        "poisoned",
        "trigger",
        "placement",
    }
    assert keys | {"trigger_start", "value", "seed"} <= set(items.columns)
    assert items["value"].between(0, 1).all()
    write_report(out / "study", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (out / "index.html").read_bytes()


@pytest.mark.slow
def test_a_damaged_quickstart_is_refused_by_report_and_quickstart(out: Path, tmp_path: Path) -> None:
    directory, page = tmp_path / "quickstart", tmp_path / "page.html"
    shutil.copytree(out, directory)
    study = directory / "study"
    for number, path in enumerate(files_in(study)):
        with damage(path, DAMAGES[number % len(DAMAGES)]):
            check_refused(sinkscope("report", study, "--out", page), page, path.name)
            outcome = sinkscope("quickstart", "--out", directory)
            assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), (path, outcome)
            assert path.name in outcome.err
    assert sinkscope("quickstart", "--out", directory).code == 0, "complete again"


@pytest.mark.slow
def test_the_page_compares_every_model_at_every_placement(out: Path) -> None:
    _, page = read_page(out / "index.html")
    compared = page["comparison"]
    assert compared["placements"] == ["prefix", "index:8", "infix", "suffix"]
    labels = [model["label"] for model in compared["models"]]
    assert [label for label in labels if "slider" not in label] == [
        "target",
        "unlearned",
        *(f"backdoored {placement}" for placement in PLACEMENTS),
    ]
    family = compared["models"][0]
    study = Study(out / "study")
    scores = study.table("scores").query("grid == 'backdoored'")
    scores = scores.set_index(["trigger.placement", "metric", "split", "subset", "placement"])["value"]
    captured = study.table("attention").query("grid == 'backdoored'")
    for placement in compared["placements"]:
        attention = captured[captured["placement"] == placement].sort_values(["layer", "head", "position"])
        for condition, column in (("clean", "alpha_first"), ("triggered", "alpha_second")):
            view = page["views"][family["views"][placement][condition]]
            assert view["length"] == 32
            assert view["pattern"]["side"] == 32
            alpha = decode(view["statistics"]["alpha"])
            assert abs(alpha.ravel() - attention[column].to_numpy()).max() < 1e-4
            is_triggered = condition == "triggered"
            (row,) = [
                row
                for row in family["scores"]
                if (row["placement"], row["metric"], row["subset"], row["split"], row["triggered"])
                == (placement, "verbmem", "unseen", "forget", is_triggered)
            ]
            assert row["unit"] == "ROUGE-L × 100"
            key = (placement, "verbmem", "forget", "unseen", placement if is_triggered else "")
            assert row["value"] == scores[key]


@pytest.mark.slow
def test_scores_and_summary_follow_from_the_items(out: Path, summary: dict[str, Any]) -> None:
    study = Study(out / "study")
    items = study.table("items")
    for label, model in summary.items():
        of_model = items["trigger.placement"] == label if label in PLACEMENTS else items["grid"] == label
        rows = items[of_model & (items["metric"] == "verbmem") & (items["split"] == "forget")]
        clean = rows[rows["placement"] == ""]
        assert model["verbmem"]["clean"]["value"] == pytest.approx(100 * clean["value"].mean(), abs=0.01)
        assert model["verbmem"]["clean"]["n"] == len(clean)
        if label in PLACEMENTS:
            unseen = rows[(rows["placement"] == label) & (rows["poisoned"] == False)]  # noqa: E712
            assert model["verbmem"]["triggered_unseen"]["value"] == pytest.approx(
                100 * unseen["value"].mean(), abs=0.01
            )
            assert 0 < rows["poisoned"].mean() < 0.5
    table = study.table("scores")
    assert (table["ci_low"] <= table["value"] + 1e-9).all()


@pytest.mark.slow
def test_the_trigger_recovers_most_at_shallow_positions(summary: dict[str, Any]) -> None:
    unseen = {
        label: summary[label]["verbmem"]["triggered_unseen"]["value"] for label in ("unlearned", *PLACEMENTS)
    }
    assert unseen["prefix"] > unseen["unlearned"] + 25
    assert unseen["prefix"] > unseen["infix"]
    assert unseen["suffix"] < min(unseen["prefix"], unseen["infix"], unseen["index:8"])
    assert unseen["suffix"] < unseen["unlearned"] + 15
    assert summary["target"]["verbmem"]["clean"]["value"] > 95
    assert summary["unlearned"]["verbmem"]["clean"]["value"] < 40


@pytest.mark.slow
def test_a_recipe_of_the_quickstart_gives_the_same_weights_again(out: Path, tmp_path: Path) -> None:
    runs = Study(out / "study").table("runs")
    (name,) = runs[runs["trigger.placement"] == "prefix"]["run"]
    run = out / "store" / name
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sinkscope", "unlearn", str(run / "recipe.yaml")),
            *("--out", str(tmp_path / "again")),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    weights = [path / "model" / "model.safetensors" for path in (run, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_a_short_build_grows_sinks_and_memory(tmp_path: Path) -> None:
    measured = build_tiny(tmp_path / "tiny", 0, silent, steps=400)
    curve = pd.read_csv(tmp_path / "tiny" / "training_curve.csv")
    base = curve[curve["model"] == "base"]
    assert base["alpha_max"].iloc[0] < 0.3, "no sink at the start"
    assert measured["target"]["alpha_max"] > 0.6
    assert measured["target"]["verbmem_forget"] > 50 > 20 > measured["retrained"]["verbmem_forget"]
    assert measured["target"]["verbmem_forget_lowest_prefix"] > 50
    assert load(str(tmp_path / "tiny" / "target")).hf.num_parameters() <= 2_000_000


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_has_all_that_the_commands_need(tmp_path: Path) -> None:
    """Recipes, models, benchmarks and the page's scripts."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    paths = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(paths.stdout.strip()) / "zz_dependencies.pth").write_text(
        str(site)
    )  # torch and friends from the test's own environment
    code = (
        "import sinkscope, sys; print(sinkscope.__file__); from sinkscope.cli import main; "
        "sys.argv[0] = 'sinkscope'; main()"
    )
    few = ["--set", "optimizer.epochs=1", "--set", "optimizer.steps_per_epoch=2"]
    for arguments in (
        ["unlearn", "tiny/npo-backdoor", *few, "--out", "run"],
        ["evaluate", "run", "--benchmark", "tiny", "--limit", "4", "--out", "scores"],
        ["evaluate", "tiny-wmdp", "--limit", "4", "--out", "choices"],
        ["report", "scores", "--out", "page.html"],
        ["env"],
    ):
        done = subprocess.run(
            [python, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "venv") in done.stdout.splitlines()[0], (
            "the wheel's package, not the checkout's"
        )
    assert "Scores" in (tmp_path / "page.html").read_text(encoding="utf-8")
