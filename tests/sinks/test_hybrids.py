"""Models some of whose layers do not attend: these are missing from results, and everything else is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sinkscope.errors import RecipeError
from sinkscope.models.layers import find_attention_layers
from sinkscope.models.model import Model, load
from sinkscope.sinks.conditions import FIRST_POSITIONS
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.sinks.statistics import FirstValueNorms
from sinkscope.sinks.tiled import TiledBackend
from sinkscope.unlearning.value_norm import ValueNormConfig, value_norm_layers
from tests.commands import check_refused, run
from tests.conftest import saved_tokenizer
from tests.sinks.architectures import build, passages


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jamba with three layers, of which layer 1 attends."""
    directory = tmp_path_factory.mktemp("jamba")
    build("jamba").save_pretrained(directory)
    saved_tokenizer("neox", directory)
    return directory


@pytest.fixture(scope="module")
def jamba(checkpoint: Path) -> Model:
    return load(checkpoint)


def test_ranks_and_means_are_those_of_the_layers_that_attend(jamba: Model) -> None:
    sinks = locate(jamba, passages(), details=True)
    assert sinks.attention_layers == [1]
    attending = sinks.alpha.sel(layer=1)
    ranked = sinks.ranked().set_index("position")
    np.testing.assert_allclose(ranked["alpha"].sort_index(), attending.mean("head")[: len(ranked)], atol=1e-6)
    assert sinks.strongest_head() == (1, int(attending.sel(position=sinks.strongest(1)).argmax()))
    assert sinks.heads_above(-1.0) == 1
    assert sinks.summary()["layers_that_attend"] == [1]
    assert sinks.tables["token_kinds"]["tokens"].sum() == sum(len(each) // 2 + 1 for each in passages())
    assert list(sinks.tables["massive_activations"]["layer"]) == [0, 1, 2], "the residual stream is in all"


def test_a_sample_of_queries_and_first_norms_leave_out_the_same_layers(jamba: Model) -> None:
    long = [[3, *range(5, 205)], [3, *range(100, 280)]]
    sampled = locate(jamba, long, CaptureConfig(query_fraction=0.5))
    full = locate(jamba, long)
    assert sampled.is_sampled
    assert sampled.attention_layers == [1]
    inside = (sampled.data["alpha_low"] <= full.alpha) & (full.alpha <= sampled.data["alpha_high"])
    assert inside.sel(layer=1)[:, :150].mean() > 0.9
    norms = FirstValueNorms(3, FIRST_POSITIONS)
    TiledBackend().capture(jamba, long, [norms])
    found = norms.result()["value_norm"]
    assert found.isnan().all(dim=(0, 2, 3)).tolist() == [True, False, True]


def test_commands_leave_the_other_layers_blank(
    checkpoint: Path, notes: Path, tmp_path: Path, capsys, monkeypatch, strict_plots
) -> None:
    text = ("--text", notes, "--max-length", 32)
    located, compared = tmp_path / "located", tmp_path / "compared"
    code, stdout, err = run(capsys, monkeypatch, "locate", checkpoint, *text, "--out", located, "--json")
    assert code == 0, err
    assert json.loads(stdout)["layers_that_attend"] == [1]
    table = pd.read_parquet(located / "sinks.parquet")
    assert table.groupby("layer")["alpha"].count().tolist() == [0, 4 * 32, 0]
    code, stdout, err = run(
        capsys, monkeypatch, "compare", checkpoint, "--trigger", "old", *text, "--out", compared, "--json"
    )
    assert code == 0, err
    assert json.loads(stdout)["most_changed_head"][0] == 1
    assert set(pd.read_parquet(compared / "maps.parquet")["layer"]) == {1}
    for directory in (located, compared):
        code, _, err = run(capsys, monkeypatch, "report", directory, "--out", f"{directory}.html")
        assert code == 0, err
    assert "layers that attend" in (tmp_path / "located.html").read_text(encoding="utf-8")


def test_value_norms_are_those_of_layers_that_attend() -> None:
    layers = find_attention_layers(build("jamba").config)
    assert value_norm_layers(ValueNormConfig(layers="all"), layers) == [1]
    assert value_norm_layers(ValueNormConfig(layers="last"), layers) == [1]
    assert value_norm_layers(ValueNormConfig(layers=[1]), layers) == [1]
    with pytest.raises(RecipeError, match="0 does not attend; these do: 1"):
        value_norm_layers(ValueNormConfig(layers=[0]), layers)


@pytest.mark.parametrize(
    ("command", "option", "value"), [("locate", "--head", "0:1"), ("compare", "--layer", "2")]
)
def test_a_layer_that_does_not_attend_is_refused(
    command, option, value, checkpoint: Path, notes: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    more = ("--trigger", "old") if command == "compare" else ()
    out = tmp_path / "out"
    outcome = run(
        capsys, monkeypatch, command, checkpoint, "--text", notes, *more, option, value, "--out", out
    )
    check_refused(
        outcome, f"{option}: layer {value[0]} of model '{checkpoint}' does not attend; use one of 1", out
    )
