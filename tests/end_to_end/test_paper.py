"""The whole paper in its quick version: the study, every figure, every claim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sinkscope.figures import PICTURES
from tests.figures.fake_following import OF

ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> dict:
    done = subprocess.run([sys.executable, "-m", "sinkscope", *arguments, "--json"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_quick_study_gives_every_figure_and_a_verdict_on_every_claim(tmp_path: Path) -> None:
    out, store, figures = tmp_path / "paper", tmp_path / "store", tmp_path / "figures"
    _run("study", str(ROOT / "analyses" / "paper.yaml"), "--quick", "--out", str(out), "--store", str(store))
    drawn = _run("figures", str(out), "--out", str(figures))
    assert set(drawn["skipped"]) == set(OF)  # those of other studies
    for name in set(PICTURES) - set(OF):
        assert f"{name}.csv" in drawn["written"] and (figures / f"{name}.csv").stat().st_size > 100
    judged = _run("claims", str(out), "--out", str(figures))["claims"]
    assert len(judged) > 50
    assert {claim["reason"] for claim in judged} == {""}, "every claim has its data"
    assert (figures / "claims.csv").is_file()
