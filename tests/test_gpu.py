"""The same numbers on a GPU as on the CPU: `pytest -m gpu`. SINKSCOPE_TEST_DEVICE names another device."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.models.attention import mask_keys
from sinkscope.models.model import Model, load
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.text import tokenize_passages
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import train
from tests.conftest import TEXT
from tests.unlearning.short_runs import assert_same
from tests.unlearning.test_sharding import RECIPES

DEVICE = os.environ.get("SINKSCOPE_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    return load("tiny", "cpu"), load("tiny", DEVICE)


@pytest.mark.parametrize(
    "config",
    [
        CaptureConfig(backend="hooks", statistics=("entropy", "attention_distance")),
        CaptureConfig(backend="tiled", statistics=("entropy", "key_norm")),
        CaptureConfig(query_fraction=0.3),
    ],
    ids=["hooks", "tiled", "sampled"],
)
def test_sinks(config: CaptureConfig, models: tuple[Model, Model]) -> None:
    passages = tokenize_passages([TEXT * 20], models[0], 300)[:3]
    expected, found = (locate(model, passages, config, details=True).data for model in models)
    assert found.attrs["backend"] == expected.attrs["backend"]
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, rtol=1e-4, err_msg=str(name))


def test_scores_and_interventions(models: tuple[Model, Model]) -> None:
    config = EvaluationConfig(limit=8)
    values = [evaluate(model, load_benchmark("tiny"), config=config)["value"] for model in models]
    assert np.isclose(*values, atol=1e-3).mean() > 0.98, "a near tie can be decided in another way"
    ids = torch.arange(5, 45)[None]
    logits = []
    for model in models:
        with torch.no_grad(), mask_keys(model, [0, 3]):
            logits.append(model.hf(ids.to(model.device)).logits.cpu())
    torch.testing.assert_close(logits[1], logits[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["npo", "rmu"])
def test_training(kind: str) -> None:
    benchmark = load_benchmark("tiny")
    logs, runs = [], []
    for device in ("cpu", DEVICE, DEVICE):
        model = load("tiny", device)
        _, log = train(Recipe.parse(RECIPES[kind]), model, benchmark)
        logs.append([[value for name, value in record.items() if "/" in name] for record in log])
        runs.append({name: tensor.cpu() for name, tensor in model.hf.state_dict().items()})
    np.testing.assert_allclose(logs[1], logs[0], rtol=1e-3)
    assert_same(runs[1], runs[2])
