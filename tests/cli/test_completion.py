"""Completion by Tab in three shells: commands, options and values, without loading torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from sinkscope.cli import options
from sinkscope.cli.main import main
from sinkscope.cli.options import Backend, Dtype, model_names
from sinkscope.evaluation.requests import PositionMask
from sinkscope.models.bos import Bos
from sinkscope.models.loading import BUILT_IN
from sinkscope.models.model import DTYPES
from sinkscope.models.smollm2 import NAME as SMOLLM2
from sinkscope.sinks.backends import BackendName
from sinkscope.sinks.statistics import QUERY_STATISTICS
from sinkscope.triggers import Kind, Placement
from sinkscope.unlearning.recipe_files import recipe_summaries

ROOT = Path(__file__).parents[2]

Complete = Callable[[str, str], str]


@pytest.fixture
def complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Complete:
    def output(shell: str, line: str) -> str:
        """What the script of the shell gets when Tab is pressed at the end of `line`."""
        monkeypatch.setattr(sys, "argv", ["sinkscope"])
        for name, value in {
            "_SINKSCOPE_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sinkscope lo", ["locate"]),
        ("sinkscope tiny bu", ["build", "build-wmdp"]),
        ("sinkscope locate --max", ["--max-length", "--max-memory"]),
        ("sinkscope locate ti", ["tiny", "tiny-retrained", "tiny-wmdp"]),
        ("sinkscope locate sm", ["smollm2"]),
        ("sinkscope compare tiny tiny-r", ["tiny-retrained"]),
        ("sinkscope evaluate tiny --retain-model tiny-r", ["tiny-retrained"]),
        ("sinkscope locate tiny --stats e", ["entropy", "experts"]),
        ("sinkscope locate tiny --backend t", ["tiled"]),
        ("sinkscope locate tiny --dtype b", ["bfloat16"]),
        ("sinkscope evaluate tiny --benchmark muse", ["muse-books", "muse-news"]),
        ("sinkscope evaluate tiny --benchmark ti", ["tiny", "tiny-wmdp"]),
        ("sinkscope evaluate tiny --placement i", ["infix", "index:8"]),
        ("sinkscope evaluate tiny --mask s", ["shallow:8", "sinks:3", "span"]),
        ("sinkscope audit tiny --placements prefix,s", ["prefix,suffix", "prefix,sink:1", "prefix,system"]),
        ("sinkscope unlearn tiny-w", [name for name in recipe_summaries() if name.startswith("tiny-w")]),
        ("sinkscope recipes --show tiny/r", ["tiny/rmu-backdoor", "tiny/rmu"]),
        ("sinkscope study q", ["quickstart"]),
        ("sinkscope locate runs/", []),
    ],
)
def test_bash(line: str, expected: list[str], complete: Complete) -> None:
    assert complete("bash", line).split() == expected


def test_zsh_and_fish_show_the_first_line_of_a_recipe(complete: Complete) -> None:
    first_line = recipe_summaries()["tiny/npo"]
    assert f'"tiny/npo":"{first_line}"' in complete("zsh", "sinkscope unlearn tiny/npo")
    assert f"tiny/npo\t{first_line}" in complete("fish", "sinkscope unlearn tiny/npo").splitlines()
    assert complete("zsh", "sinkscope locate runs/").strip() == "_files"


def test_the_library_accepts_all_offered_values(complete: Complete) -> None:
    """The values are copies in `cli.options`, because the modules that define them load torch."""
    assert model_names() == [*BUILT_IN, SMOLLM2]
    assert get_args(Backend) == get_args(BackendName)
    assert get_args(Dtype) == tuple(DTYPES)
    assert complete("bash", "sinkscope locate tiny --stats ").split() == [
        *QUERY_STATISTICS,
        "key_norm",
        "attention_scores",
        "experts",
    ]
    placements = complete("bash", "sinkscope evaluate tiny --placement ").split()
    kinds = {Placement.parse(placement).kind for placement in placements}
    assert kinds == {*get_args(Kind)}
    assert get_args(options.Bos) == get_args(Bos)
    masks = complete("bash", "sinkscope evaluate tiny --mask ").split()
    assert {PositionMask.parse(mask).kind for mask in masks} == {"shallow", "sinks", "span", "positions"}


def test_the_installed_command_completes_in_bash_without_loading_torch(tmp_path: Path) -> None:
    """A script like that of pip for the entry point; bash sources its completion and calls it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["scripts"]["sinkscope"].split(":")
    script = tmp_path / "sinkscope"
    at_exit = (
        "import atexit, sys\natexit.register(lambda: 'torch' in sys.modules and print('loaded-torch'))\n"
    )
    script.write_text(
        f"#!{sys.executable}\n{at_exit}from {module} import {name}\n{name}()\n", encoding="utf-8"
    )
    script.chmod(0o755)
    commands = """
        set -eu
        eval "$(_SINKSCOPE_COMPLETE=source_bash sinkscope)"
        for words in "unlearn tiny/rmu" "locate tiny-r" "evaluate tiny --benchmark muse" \\
                     "evaluate tiny --placement i" "evaluate tiny --mask p" "locate tiny --stats e" \\
                     "locate tiny --backend t" "locate tiny --dtype b"; do
            COMP_WORDS=(sinkscope $words)
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _sinkscope_completion sinkscope
            echo "${COMPREPLY[@]}"
        done
    """
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "--norc", "-c", commands], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "tiny/rmu-backdoor tiny/rmu",
        "tiny-retrained",
        "muse-books muse-news",
        "infix index:8",
        "positions:4,9",
        "entropy experts",
        "tiled",
        "bfloat16",
    ]
