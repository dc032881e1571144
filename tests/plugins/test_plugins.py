"""Plugins: an objective, a metric and a benchmark of at most 40 lines each, by file and by entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import check_refused, run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHORT = ["--set", "optimizer.epochs=1", "--set", "optimizer.steps_per_epoch=2"]
RECIPE = "objective: {forget: bounded_ascent, max_loss: 3.0}\n"


@pytest.mark.parametrize("name", ["objective", "metric", "benchmark", "figure"])
def test_a_plugin_takes_at_most_40_lines(name: str) -> None:
    assert len((HERE / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 40


def _sinkscope(*arguments: object, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: what a plugin registers stays in it."""
    command = [sys.executable, "-m", "sinkscope", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(path)])}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_an_objective_of_a_plugin_trains_and_its_source_is_part_of_the_identity(tmp_path: Path) -> None:
    recipe, plugin, out = tmp_path / "recipe.yaml", tmp_path / "losses.py", tmp_path / "run"
    recipe.write_text(RECIPE)
    shutil.copy(HERE / "objective.py", plugin)

    def unlearn(*options: object) -> subprocess.CompletedProcess[str]:
        return _sinkscope("unlearn", recipe, *SHORT, "--out", out, *options)

    without = unlearn()
    assert without.returncode == 2 and "'bounded_ascent' is unknown" in without.stderr
    assert without.stderr.count("\n") == 1 and not out.exists(), "a recipe alone executes no code"
    done = unlearn("--plugin", plugin)
    assert done.returncode == 0, done.stderr
    identity = json.loads((out / "run.json").read_text())["identity"]
    assert unlearn("--plugin", plugin).returncode == 0
    assert json.loads((out / "run.json").read_text())["identity"] == identity
    plugin.write_text(plugin.read_text() + "\n# another version\n")
    changed = unlearn("--plugin", plugin)
    assert changed.returncode == 2 and "another run's results" in changed.stderr


def test_a_recipe_with_an_objective_of_a_plugin_is_shown_and_is_in_the_schema(tmp_path: Path) -> None:
    recipe, plugin = tmp_path / "recipe.yaml", ["--plugin", HERE / "objective.py"]
    recipe.write_text(RECIPE)
    assert "max_loss: 3.0\n" in _sinkscope("recipes", "--show", recipe, *plugin).stdout
    assert "'bounded_ascent' is unknown" in _sinkscope("recipes", "--show", recipe).stderr
    assert '"bounded_ascent"' in _sinkscope("recipes", "--schema", *plugin).stdout
    assert '"bounded_ascent"' not in _sinkscope("recipes", "--schema").stdout


def test_a_metric_and_a_benchmark_of_plugins_are_evaluated(tmp_path: Path) -> None:
    metric = tmp_path / "first_word.py"
    shutil.copy(HERE / "metric.py", metric)
    plugins = ["--plugin", metric, "--plugin", HERE / "benchmark.py"]
    options = ["--benchmark", "short", "--metrics", "first_word", "--out", tmp_path / "out", "--json"]
    done = _sinkscope("evaluate", "tiny", *plugins, *options)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    assert {(row["metric"], row["n"]) for row in scores} == {("first_word", 10)}
    forget = next(row for row in scores if row["split"] == "forget")
    assert forget["value"] > 50, "the target recites the book"
    metric.write_text(metric.read_text() + "\n# another version\n")
    changed = _sinkscope("evaluate", "tiny", *plugins, *options)
    assert changed.returncode == 2 and "another run's results" in changed.stderr


def test_a_study_uses_an_objective_and_a_metric_of_plugins(tmp_path: Path) -> None:
    spec = tmp_path / "study.yaml"
    spec.write_text(
        "seeds: [0]\n"
        "evaluations: {words: {metrics: [first_word], limit: 4}}\n"
        "grids:\n"
        "  bounded:\n"
        "    recipe: tiny/npo\n"
        "    set: {objective.forget: bounded_ascent, optimizer.epochs: 1, optimizer.steps_per_epoch: 2}\n"
        "    evaluations: [words]\n"
    )
    plugins = ["--plugin", HERE / "objective.py", "--plugin", HERE / "metric.py"]
    paths = ["--out", tmp_path / "study", "--store", tmp_path / "store"]
    assert _sinkscope("study", spec, *paths).returncode == 2
    done = _sinkscope("study", spec, *paths, *plugins)
    assert done.returncode == 0, done.stderr
    items = pd.read_parquet(tmp_path / "study" / "items.parquet")
    assert set(items["metric"]) == {"first_word"}
    assert set(items["grid"]) == {"bounded"}


def test_an_installed_package_registers_by_entry_points(tmp_path: Path) -> None:
    """The metadata is what an installer writes for `[project.entry-points."sinkscope.objectives"]`."""
    shutil.copy(HERE / "objective.py", tmp_path / "my_losses.py")
    metadata = tmp_path / "my_losses-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-losses\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sinkscope.objectives]\nmine = my_losses\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    done = _sinkscope("unlearn", recipe, *SHORT, "--out", tmp_path / "run", path=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a file"), ("raise ValueError('no')", "fails: ValueError: no"), ("x =", "SyntaxError")],
)
def test_a_bad_plugin_is_one_line(content, message, tmp_path, capsys, monkeypatch) -> None:
    plugin = tmp_path / "plugin.py"
    if content is not None:
        plugin.write_text(content)
    arguments = ["unlearn", "tiny/npo", "--plugin", plugin, "--out", tmp_path / "out"]
    check_refused(run(capsys, monkeypatch, *arguments), message, tmp_path / "out")


def test_a_plugin_that_fails_while_it_runs_is_named_with_its_line(tmp_path: Path) -> None:
    recipe, plugin = tmp_path / "recipe.yaml", tmp_path / "losses.py"
    recipe.write_text(RECIPE)
    lines = (HERE / "objective.py").read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.lstrip().startswith("log_probs ="))
    lines[at] = "    log_probs = outputs.hidden * 2"
    plugin.write_text("\n".join(lines))
    done = _sinkscope("unlearn", recipe, *SHORT, "--out", tmp_path / "run", "--plugin", plugin)
    knows, error = done.stderr.splitlines()
    assert done.returncode == 2 and knows.startswith("model tiny knows the forget set of tiny")
    assert f"plugin {plugin}, line {at + 1}: TypeError: unsupported operand" in error
    assert not (tmp_path / "run").exists()
