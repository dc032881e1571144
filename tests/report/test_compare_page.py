"""The page of a comparison has the maps and statistics of both conditions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sinkscope.models.model import load
from sinkscope.sinks.backends import choose_backend
from sinkscope.sinks.conditions import insert_trigger
from sinkscope.sinks.locate import locate
from sinkscope.sinks.statistics import BinnedPattern
from sinkscope.text import tokenize_passages
from sinkscope.triggers import Placement, Trigger
from tests.commands import run
from tests.report.pages import report_page
from tests.report.test_payload import decode

SENTENCE = "the harbour was quiet and the old captain walked along the wall with a lamp "
LENGTH = 30


@pytest.mark.parametrize("two", [False, True], ids=["clean and triggered", "two models"])
def test_the_page_of_a_comparison_has_the_maps_of_both(
    two: bool, checkpoints, tmp_path: Path, capsys, monkeypatch
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(SENTENCE * 9, encoding="utf-8")
    models = ["tiny", "tiny-retrained"] if two else [checkpoints["llama"]]
    options = ["--text", notes, "--trigger", "old road", "--max-length", LENGTH]
    run(capsys, monkeypatch, "compare", *models, *options, "--out", tmp_path / "compared")
    _, page = report_page(tmp_path / "compared", tmp_path / "page.html")
    (model,), labels = page["comparison"]["models"], page["comparison"]["labels"]
    assert labels["clean"] == ("A = tiny" if two else "clean")
    expected_change = "B − A (A = tiny, B = tiny-retrained)" if two else "change by the trigger"
    assert labels["change"] == expected_change
    passages = tokenize_passages([notes.read_text(encoding="utf-8")], load(str(models[0])), LENGTH)
    for index, condition in enumerate(("clean", "triggered")):
        view = page["views"][model["views"][""][condition]]
        reader = load(str(models[index if two else 0]))
        has_trigger = two or index == 1
        placement = Placement.parse("prefix")
        texts = passages
        if has_trigger:
            texts, _ = insert_trigger(reader, passages, Trigger("old road"), placement)
        expected = BinnedPattern([(1, 2)], LENGTH, 1)
        full_length = [text for text in texts if len(text) == LENGTH]
        choose_backend(reader, texts).capture(reader, full_length, [expected])
        queries, keys = np.tril_indices(LENGTH)
        cells = expected.result()["pattern"].numpy()[0][queries, keys]
        np.testing.assert_allclose(decode(view["pattern"]["cells"])[1, 2], cells, atol=1e-4)
        sinks = locate(reader, texts).data
        for name in ("alpha", "value_norm"):
            tolerance = float(sinks[name].max()) / 5e4
            np.testing.assert_allclose(decode(view["statistics"][name]), sinks[name].values, atol=tolerance)
        assert ("old road" in "".join(view["tokens"])) == has_trigger
