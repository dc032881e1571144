"""Which experts are chosen, against the choice that router logits imply."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sinkscope.errors import ModelError
from sinkscope.models.model import Model
from sinkscope.sinks.experts import measure_experts
from sinkscope.sinks.locate import CaptureConfig, locate
from tests.conftest import saved_tokenizer
from tests.sinks.architectures import build, passages


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return saved_tokenizer("neox", tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "olmoe"])
@pytest.mark.parametrize("position", [0, 2])
def test_shares_are_those_of_the_router_one_passage_at_a_time(name: str, position: int, tokenizer) -> None:
    network = build(name)
    chosen: dict[tuple[int, bool], list[int]] = {}
    for passage in passages():
        with torch.no_grad():
            output = network(torch.tensor([passage]), output_router_logits=True)
        for layer, logits in enumerate(output.router_logits):
            for k, row in enumerate(logits.view(len(passage), -1)):
                chosen.setdefault((layer, k == position), []).append(int(row.argmax()))  # one for each token
    table = measure_experts(Model(name, network, tokenizer), passages(), position, batch_size=3)
    for row in table.itertuples():
        for at, share in ((True, row.share), (False, row.share_elsewhere)):
            assert share == pytest.approx(np.mean(np.array(chosen[row.layer, at]) == row.expert), abs=1e-6)
    assert 0 < table["share_elsewhere"].max() < 1, "routers decide something"


def test_locate_measures_experts_at_the_strongest_position_on_request(tokenizer) -> None:
    model = Model("mixtral", build("mixtral"), tokenizer)
    sinks = locate(model, passages(), CaptureConfig(statistics=("experts",)))
    expected = measure_experts(model, passages(), sinks.strongest(1))
    pd.testing.assert_frame_equal(sinks.tables["experts"], expected)
    assert "experts" not in locate(model, passages()).tables
    with pytest.raises(ModelError, match="'llama' has no experts that can be read"):
        locate(Model("llama", build("llama"), tokenizer), passages(), CaptureConfig(statistics=("experts",)))
