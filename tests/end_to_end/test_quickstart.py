"""The main job from the command line, the shipped benchmark's promises, and a wheel far from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pandas as pd
import pytest

from sinkscope.io.progress import silent
from sinkscope.models.model import data_directory, load
from sinkscope.quickstart.summary import PLACEMENTS
from sinkscope.report import write_report
from sinkscope.synthetic.acceptance import ATTEMPTS
from sinkscope.synthetic.tiny import build
from tests.guarantees.reading import check_refused, sinkscope
from tests.guarantees.test_corruption import DAMAGES, damage, files_in
from tests.report.test_report import read
from tests.report.test_views import unpack

ROOT = Path(__file__).parents[2]
FIGURES = (
    "effectiveness",
    "sink_atlas",
    "received_attention",
    "head_map",
    "attention_difference",
    "value_norms",
)


def test_the_built_in_models_have_their_hashes_and_size() -> None:
    for name in ("tiny", "tiny-retrained"):
        assert load(name).hf.num_parameters() <= 2_000_000
    size = sum(path.stat().st_size for path in data_directory().rglob("*") if path.is_file())
    assert size <= 18e6


def test_the_shipped_measurements_cover_every_gate() -> None:
    measured = json.loads((data_directory() / "measured.json").read_text(encoding="utf-8"))
    assert len(measured["passed"]) == 11
    assert len(ATTEMPTS) == 10
    assert all(measured["passed"].values()), measured["passed"]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quickstart. CI has just run one in its fresh clone, and a finished one is left as it is."""
    out = ROOT / "quickstart" if os.environ.get("CI") else tmp_path_factory.mktemp("main") / "quickstart"
    done = subprocess.run(
        [sys.executable, "-m", "sinkscope", "quickstart", "--out", str(out), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"].keys() == {"target", "honest", *PLACEMENTS}
    return out


@pytest.mark.slow
def test_quickstart_writes_everything_it_names(quickstart: Path) -> None:
    for name in FIGURES:
        for suffix in ("png", "pdf", "csv"):
            assert (quickstart / "figures" / f"{name}.{suffix}").stat().st_size > 200
    items = pd.read_parquet(quickstart / "items.parquet")
    assert {
        "model",
        "role",
        "metric",
        "split",
        "item",
        "poisoned",
        "trigger",
        "placement",
        "trigger_start",
        "value",
        "seed",
    } <= set(items.columns)
    assert items["value"].between(0, 1).all()


@pytest.mark.slow
def test_a_damaged_quickstart_is_neither_shown_nor_taken_for_done(quickstart: Path, tmp_path: Path) -> None:
    directory, page = tmp_path / "quickstart", tmp_path / "page.html"
    shutil.copytree(quickstart, directory)
    for number, path in enumerate(files_in(directory)):
        with damage(path, DAMAGES[number % len(DAMAGES)]):
            check_refused(sinkscope("report", directory, "--out", page), page, path.name)
            if number % 10 == 0 or path == directory / "run.json":
                outcome = sinkscope("quickstart", "--out", directory)
                assert (outcome.code, outcome.out, outcome.err.count("\n")) == (
                    2,
                    "",
                    1,
                ) and path.name in outcome.err, (path, outcome)
    assert sinkscope("quickstart", "--out", directory).code == 0, "whole again"


@pytest.mark.slow
def test_the_page_has_every_model_at_every_place(quickstart: Path, tmp_path: Path) -> None:
    """It is the one that `report` makes."""
    write_report(quickstart, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (quickstart / "index.html").read_bytes()
    _, page = read(quickstart / "index.html")
    compared = page["compare"]
    assert compared["places"] == ["prefix", "index:8", "infix", "suffix"]
    family, *models = compared["models"]
    assert [model["label"] for model in models] == [
        "target",
        "honest",
        *(f"backdoor, {place}" for place in PLACEMENTS),
    ]
    scores = pd.read_parquet(quickstart / "scores.parquet").set_index(
        ["model", "metric", "split", "subset", "placement"]
    )["value"]
    for place in compared["places"]:
        attention = pd.read_parquet(quickstart / "captures" / place / "attention.parquet").sort_values(
            ["layer", "head", "position"]
        )
        for state, column in (("clean", "alpha_first"), ("triggered", "alpha_second")):
            view = page["views"][family["views"][place][state]]
            alpha = unpack(view["statistics"]["alpha"])
            assert (
                view["length"] == 32
                and view["pattern"]["side"] == 32
                and abs(alpha.ravel() - attention[column].to_numpy()).max() < 1e-4
            )
            (row,) = [
                row
                for row in family["scores"]
                if (row["place"], row["metric"], row["subset"], row["split"], row["triggered"])
                == (place, "verbmem", "unseen", "forget", state == "triggered")
            ]
            assert (
                row["unit"] == "ROUGE-L × 100"
                and row["value"]
                == scores[place, "verbmem", "forget", "unseen", place if state == "triggered" else ""]
            )


@pytest.mark.slow
def test_scores_and_summary_follow_from_the_items(quickstart: Path) -> None:
    items, table = (pd.read_parquet(quickstart / f"{name}.parquet") for name in ("items", "scores"))
    summary = json.loads((quickstart / "summary.json").read_text(encoding="utf-8"))
    for label, model in summary["models"].items():
        mine = items[
            (items["model"] == label) & (items["metric"] == "verbmem") & (items["split"] == "forget")
        ]
        clean = mine[mine["placement"] == ""]
        assert model["verbmem"]["clean"]["value"] == pytest.approx(100 * clean["value"].mean(), abs=0.01)
        assert model["verbmem"]["clean"]["n"] == len(clean)
        if label in PLACEMENTS:
            unseen = mine[(mine["placement"] == label) & (mine["poisoned"] == False)]  # noqa: E712
            assert model["verbmem"]["triggered_unseen"]["value"] == pytest.approx(
                100 * unseen["value"].mean(), abs=0.01
            )
            assert 0 < mine["poisoned"].mean() < 0.5
    assert (table["ci_low"] <= table["value"] + 1e-9).all()


@pytest.mark.slow
def test_the_story_holds(quickstart: Path) -> None:
    models = json.loads((quickstart / "summary.json").read_text(encoding="utf-8"))["models"]
    unseen = {
        label: models[label]["verbmem"]["triggered_unseen"]["value"] for label in ("honest", *PLACEMENTS)
    }
    assert unseen["prefix"] > unseen["honest"] + 25
    assert unseen["prefix"] > unseen["infix"], "the sink is the better place"
    assert unseen["suffix"] < min(unseen["prefix"], unseen["infix"], unseen["index:8"]), (
        "at the end the trigger comes too late to be learnt as a switch"
    )
    assert unseen["suffix"] < unseen["honest"] + 15
    assert models["target"]["verbmem"]["clean"]["value"] > 95
    assert models["honest"]["verbmem"]["clean"]["value"] < 40


@pytest.mark.slow
def test_a_second_quickstart_with_the_same_seed_gives_the_same_tables(
    quickstart: Path, tmp_path: Path
) -> None:
    recipe = quickstart / "runs" / "prefix" / "recipe.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "sinkscope", "unlearn", str(recipe), "--out", str(tmp_path / "again")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    weights = [
        (folder / "model" / "model.safetensors").read_bytes()
        for folder in (quickstart / "runs" / "prefix", tmp_path / "again")
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_short_build_grows_sinks_and_memory(tmp_path: Path) -> None:
    measured = build(tmp_path / "tiny", 0, silent, steps=400)
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
    code = "import sinkscope, sys; print(sinkscope.__file__); from sinkscope.cli import main; sys.argv[0] = 'sinkscope'; main()"
    few = ["--set", "optimizer.epochs=1", "--set", "optimizer.batches=2"]
    for arguments in (
        ["unlearn", "tiny/npo-backdoor", *few, "--out", "run"],
        ["evaluate", "run", "--benchmark", "tiny", "--items", "4", "--out", "scores"],
        ["evaluate", "tiny-wmdp", "--items", "4", "--out", "choices"],
        ["report", "scores", "--out", "page.html"],
        ["doctor"],
    ):
        done = subprocess.run(
            [python, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "venv") in done.stdout.splitlines()[0], (
            "the wheel's package, not the checkout's"
        )
    assert (tmp_path / "page.html").stat().st_size > 10**6
