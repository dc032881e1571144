"""Points of a grid that share one run: each has the maps and scores that were measured at its own placement.

Clean unlearning does not depend on the trigger, so its runs are shared. Captures of two names can share a
job, which counts once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sinkscope.studies.jobs import Store
from sinkscope.studies.spec import Spec
from sinkscope.studies.study import Study, run_study
from tests.report.pages import report_page
from tests.report.test_payload import decode
from tests.studies.small import FEW

PLACEMENTS = ("prefix", "suffix")
SHARED: dict[str, Any] = {
    "seeds": [0],
    "evaluations": {"few": {"metrics": ["verbmem"], "limit": 3}},
    "captures": {"heads": {"passages": 2}, "again": {"passages": 2}},
    "grids": {
        "unlearned": {
            "set": FEW | {"poison_ratio": 0},
            "axes": {"trigger.placement": list(PLACEMENTS)},
            "evaluations": ["few"],
            "captures": ["heads", "again"],
        }
    },
}
SWEEP = "unlearned (triggered at slider placement)"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("shared")
    return run_study(Spec.model_validate(SHARED), root / "out", Store(root / "store"))


@pytest.fixture(scope="module")
def data(shared: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = shared.table("runs")
    assert runs["run"].nunique() == 1
    assert runs["trigger.placement"].tolist() == list(PLACEMENTS)
    return report_page(shared.directory, tmp_path_factory.mktemp("page") / "page.html")[1]


def test_the_comparison_has_every_point_and_their_sweep(data: dict[str, Any]) -> None:
    assert data["comparison"]["placements"] == list(PLACEMENTS)
    labels = [model["label"] for model in data["comparison"]["models"]]
    assert labels == [SWEEP, "unlearned prefix", "unlearned suffix"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_each_point_has_its_own_maps_tokens_and_scores(
    shared: Study, data: dict[str, Any], placement: str
) -> None:
    attention, scores = shared.table("attention"), shared.table("scores")
    is_point = (attention["placement"] == placement) & (attention["capture"] == "again")
    rows = attention[is_point].sort_values(["layer", "head", "position"])
    maps = shared.patterns(rows["job"].iloc[0]).sel(placement=placement, condition="triggered").values
    queries, keys = np.tril_indices(maps.shape[-1])
    is_forget = (scores["split"] == "forget") & (scores["subset"] == "all")
    score = scores[is_forget & (scores["placement"] == placement)].squeeze()
    models = {model["label"]: model for model in data["comparison"]["models"]}
    for model in (models[f"unlearned {placement}"], models[SWEEP]):
        view = data["views"][model["views"][placement]["triggered"]]
        alpha = decode(view["statistics"]["alpha"]).ravel()
        np.testing.assert_allclose(alpha, rows["alpha_second"], atol=1e-4)
        np.testing.assert_allclose(decode(view["pattern"]["cells"]), maps[:, :, queries, keys], atol=1e-4)
        start, stop = view["span"]
        assert "current year" in "".join(view["tokens"][start:stop])
        values = [
            row["value"]
            for row in model["scores"]
            if (row["placement"], row["triggered"], row["split"], row["subset"])
            == (placement, True, "forget", "all")
        ]
        assert values == [pytest.approx(score["value"])]


def test_each_point_has_its_own_row_in_the_table_of_runs(shared: Study, data: dict[str, Any]) -> None:
    scores = shared.table("scores")
    is_triggered = (scores["placement"] != "") & (scores["split"] == "forget") & (scores["subset"] == "all")
    expected = scores[is_triggered].set_index("placement")["value"].to_dict()
    table = next(table for table in data["tables"] if table["name"] == "runs")
    columns = [table["columns"].index(name) for name in ("trigger.placement", "verbmem, triggered")]
    assert {row[columns[0]]: row[columns[1]] for row in table["rows"]} == pytest.approx(expected)
