"""Every command's help shows an example, and the parser takes it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from sinkscope.cli.main import app
from sinkscope.unlearning.recipe_files import named_recipes

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"Example: `([^`]+)`")


def _walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every group and command, with the words after `sinkscope` that lead to it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, (*path, name))


COMMANDS = dict(_walk(get_command(app)))


def _parsed(example: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The command that an example is of, and the values of its parameters; nothing is run."""
    program, *words = shlex.split(example)
    assert program == "sinkscope"
    path: tuple[str, ...] = ()
    while hasattr(COMMANDS[path], "commands"):
        path, words = (*path, words[0]), words[1:]
    return path, COMMANDS[path].make_context(" ".join(path), words).params


def test_the_walk_finds_commands_and_those_of_groups() -> None:
    assert {(), ("locate",), ("env",), ("tiny",), ("tiny", "build"), ("tiny", "build-wmdp")} <= set(COMMANDS)


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_an_example_of_the_command_is_in_its_help_and_parses(path: tuple[str, ...]) -> None:
    examples = EXAMPLE.findall(COMMANDS[path].help)
    assert examples
    for example in examples:
        command, values = _parsed(example)
        assert command[: len(path)] == path
        for name, value in values.items():
            if name in ("recipe", "spec") and Path(value).name != "recipe.yaml":
                assert value in named_recipes() or (ROOT / value).is_file(), "it names what is there"
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "100"})
    assert shown.exit_code == 0
    text = " ".join(shown.output.split())
    assert [example for example in examples if example not in text] == []


@pytest.mark.parametrize(
    "wrong",
    [
        "sinkscope locate tiny --txt notes.txt",
        "sinkscope locate --text notes.txt",
        "sinkscope tiny build --steps few",
    ],
)
def test_a_wrong_example_would_be_noticed(wrong: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|missing|valid integer"):
        _parsed(wrong)
