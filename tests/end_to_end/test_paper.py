"""The whole paper, made small: the study, every figure, every claim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import make
import pandas as pd
import pytest
import yaml

from tests.analyses.fake_extensions import SPECIFICATION

ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "sinkscope", *arguments, "--json"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_papers_specification_gives_every_figure_and_the_data_of_every_claim(tmp_path: Path) -> None:
    """One seed, four steps a run, 8 items a split, 16 passages a capture: every figure and claim has
    its data."""
    described = yaml.safe_load((ROOT / "analyses" / "paper.yaml").read_text(encoding="utf-8"))
    for grid in described["grids"].values():
        if "models" not in grid and "perturbations" not in grid:
            grid["set"] = grid.get("set", {}) | {"optimizer.epochs": 1, "optimizer.steps_per_epoch": 4}
    for evaluation in described["evaluations"].values():
        evaluation["limit"] = 8
    for capture in described["captures"].values():
        capture["passages"] = 16
    spec, out, store, figures = (tmp_path / name for name in ("paper.yaml", "paper", "store", "figures"))
    spec.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    _run("study", str(spec), "--quick", "--out", str(out), "--store", str(store))
    make.main([str(out), "--out", str(figures)])
    expected = set(make.find_figures()) - set(SPECIFICATION)  # the others belong to other studies
    assert {path.stem for path in figures.glob("*.svg")} == expected
    assert all((figures / f"{name}.csv").stat().st_size > 100 for name in expected)
    claims = pd.read_csv(figures / "claims.csv")
    assert len(claims) > 50
    needs_second_seed = claims["metric"].isin(["divergence", "value norms"])
    assert claims["effect"].notna()[~needs_second_seed].all(), "every claim has its data"
