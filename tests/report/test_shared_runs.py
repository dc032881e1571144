"""Points of a grid that share one run, as honest unlearning at several places of a trigger: each has the maps and scores that were measured at
its own. And captures that share one job under two names: what they saw counts once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sinkscope.studies.spec import Spec
from sinkscope.studies.store import Store
from sinkscope.studies.study import Study, run_study
from tests.report.test_report import shown
from tests.report.test_views import unpack
from tests.studies.small import FEW

PLACES = ("prefix", "suffix")
SHARED: dict[str, Any] = {
    "seeds": [0],
    "evaluations": {"few": {"metrics": ["verbmem"], "items": 3}},
    "captures": {"heads": {"passages": 2}, "again": {"passages": 2}},
    "grids": {
        "unlearned": {
            "set": FEW | {"poison_ratio": 0},
            "axes": {"trigger.placement": list(PLACES)},
            "evaluations": ["few"],
            "captures": ["heads", "again"],
        }
    },
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("shared")
    return run_study(Spec.model_validate(SHARED), root / "out", Store(root / "store"))


def test_each_point_has_its_own_maps_tokens_and_scores(shared: Study, tmp_path: Path) -> None:
    runs, attention, scores = (shared.table(name) for name in ("runs", "attention", "scores"))
    assert runs["run"].nunique() == 1 and runs["trigger.placement"].tolist() == list(PLACES)
    _, data = shown(shared.directory, tmp_path / "page.html")
    assert data["compare"]["places"] == list(PLACES)
    models = {model["label"]: model for model in data["compare"]["models"]}
    assert list(models) == ["honest (trigger where the slider stands)", "honest prefix", "honest suffix"]
    for place in PLACES:
        mine = attention[(attention["placement"] == place) & (attention["capture"] == "again")].sort_values(
            ["layer", "head", "position"]
        )
        maps = shared.patterns(mine["job"].iloc[0]).sel(placement=place, condition="triggered").values
        row = scores[
            (scores["placement"] == place) & (scores["split"] == "forget") & (scores["subset"] == "all")
        ].squeeze()
        for model in (models[f"honest {place}"], models["honest (trigger where the slider stands)"]):
            view = data["views"][model["views"][place]["triggered"]]
            np.testing.assert_allclose(
                unpack(view["statistics"]["alpha"]).ravel(), mine["alpha_second"], atol=1e-4
            )
            rows, keys = np.tril_indices(maps.shape[-1])
            np.testing.assert_allclose(unpack(view["pattern"]["cells"]), maps[:, :, rows, keys], atol=1e-4)
            start, stop = view["span"]
            assert "current year" in "".join(view["tokens"][start:stop])
            told = [
                each
                for each in model["scores"]
                if each["place"] == place
                and each["triggered"]
                and each["split"] == "forget"
                and each["subset"] == "all"
            ]
            assert [each["value"] for each in told] == [pytest.approx(row["value"])]
    table = next(table for table in data["tables"] if table["name"] == "runs")
    best = table["columns"].index("verbmem, triggered")
    expected = scores[
        (scores["placement"] != "") & (scores["split"] == "forget") & (scores["subset"] == "all")
    ].set_index("placement")["value"]
    assert {
        row[table["columns"].index("trigger.placement")]: row[best] for row in table["rows"]
    } == pytest.approx(expected.to_dict())
