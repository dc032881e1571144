"""The whole paper, made small: the study, every figure, every claim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sinkscope.figures import PICTURES
from tests.figures.fake_following import OF

ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "sinkscope", *arguments, "--json"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_papers_specification_gives_every_figure_and_the_data_of_every_claim(tmp_path: Path) -> None:
    """With one seed, four batches a run, 8 items a split and 16 passages a capture; which pictures and claims come of it is the same."""
    described = yaml.safe_load((ROOT / "analyses" / "paper.yaml").read_text(encoding="utf-8"))
    for grid in described["grids"].values():
        if "models" not in grid:
            grid["set"] = grid.get("set", {}) | {"optimizer.epochs": 1, "optimizer.steps_per_epoch": 4}
    for evaluation in described["evaluations"].values():
        evaluation["items"] = 8
    for capture in described["captures"].values():
        capture["passages"] = 16
    spec, out, store, figures = (tmp_path / name for name in ("paper.yaml", "paper", "store", "figures"))
    spec.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    _run("study", str(spec), "--quick", "--out", str(out), "--store", str(store))
    drawn = _run("figures", str(out), "--out", str(figures))
    assert set(drawn["skipped"]) == set(OF)  # those of other studies
    for name in set(PICTURES) - set(OF):
        assert f"{name}.csv" in drawn["written"] and (figures / f"{name}.csv").stat().st_size > 100
    judged = _run("claims", str(out), "--out", str(figures))["claims"]
    assert len(judged) > 50
    reasons = {claim["reason"] for claim in judged if claim["metric"] != "divergence"}
    assert reasons == {"one seed says nothing of others"}, (
        "every claim has its data"
    )  # a divergence takes a second seed
    assert (figures / "claims.csv").is_file()
