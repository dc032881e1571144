"""The command `sinkscope recipes`: the list, one recipe with all keys, the JSON schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.recipe_files import recipe_summaries
from sinkscope.unlearning.recipe_schema import recipe_schema
from tests.commands import check_refused, run

Shown = Callable[..., str]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shown:
    def output(*arguments: object) -> str:
        code, out, err = run(capsys, monkeypatch, "recipes", *arguments)
        assert code == 0, err
        return out

    return output


def test_without_options_all_are_listed(shown: Shown) -> None:
    assert shown().splitlines() == [f"{name}: {line}" for name, line in recipe_summaries().items()]
    assert json.loads(shown("--json")) == recipe_summaries()


def test_a_recipe_is_shown_with_all_keys(shown: Shown, tmp_path: Path) -> None:
    text = shown("--show", "muse-news/rmu-backdoor")
    recipe = Recipe.read("muse-news/rmu-backdoor")
    assert text == recipe.to_yaml()
    assert json.loads(shown("--show", "muse-news/rmu-backdoor", "--json")) == yaml.safe_load(text)
    (tmp_path / "shown.yaml").write_text(text)
    (tmp_path / "own.yaml").write_text("extends: shown.yaml\nseed: 3")
    values = yaml.safe_load(shown("--show", tmp_path / "own.yaml"))
    assert values == recipe.model_dump(mode="json") | {"seed": 3}


def test_the_schema_is_printed(shown: Shown) -> None:
    assert json.loads(shown("--schema")) == recipe_schema()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--show", "tiny/nop"], "did you mean 'tiny/npo'?"),
        (["--show", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--show", "tiny/npo", "--schema"], "--show and --schema cannot be combined; give one of them"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(run(capsys, monkeypatch, "recipes", *arguments), message, tmp_path / "out")
