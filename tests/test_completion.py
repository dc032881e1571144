"""Tab in three shells: commands, options and values, without loading torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sinkscope.cli import completion
from sinkscope.cli.main import main
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.models.model import BUILT_IN, DTYPES
from sinkscope.sinks.backends import BACKENDS
from sinkscope.sinks.statistics import QUERY_STATISTICS
from sinkscope.triggers import Placement
from sinkscope.unlearning.recipes import named_recipes

ROOT = Path(__file__).parents[1]


def test_values_on_offer_are_those_that_are_taken() -> None:
    """Copies, because what they are copied from loads torch."""
    assert tuple(BUILT_IN) == completion.MODELS
    assert tuple(QUERY_STATISTICS) == completion.STATISTICS
    assert completion.SOURCES == BACKENDS
    assert tuple(DTYPES) == completion.DTYPES
    assert {Placement.parse(each).kind for each in completion.PLACEMENTS} == {
        "prefix",
        "infix",
        "suffix",
        "index",
        "sink",
    }
    assert len({PositionMask.parse(each).kind for each in completion.MASKS}) == len(completion.MASKS)


@pytest.fixture
def complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def offered(shell: str, line: str) -> str:
        """What the shell's own script is answered when Tab is pressed at the end of `line`."""
        words = line.split(" ")
        monkeypatch.setattr(sys, "argv", ["sinkscope"])
        monkeypatch.setattr(
            sys.modules["__main__"], "__package__", ""
        )  # started as a script, not as a module like pytest
        for name, value in {
            "_SINKSCOPE_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return offered


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sinkscope lo", ["locate"]),
        ("sinkscope tiny bu", ["build", "build-wmdp"]),
        ("sinkscope locate --max", ["--max-length"]),
        ("sinkscope locate ti", list(BUILT_IN)),
        ("sinkscope compare tiny tiny-r", ["tiny-retrained"]),
        ("sinkscope locate tiny --also e", ["entropy"]),
        ("sinkscope locate tiny --source s", ["stream"]),
        ("sinkscope locate tiny --dtype b", ["bfloat16"]),
        ("sinkscope evaluate tiny --benchmark muse", ["muse-books", "muse-news"]),
        ("sinkscope evaluate tiny --benchmark ti", ["tiny", "tiny-wmdp"]),
        ("sinkscope evaluate tiny --placement i", ["infix", "index:8"]),
        ("sinkscope evaluate tiny --mask s", ["shallow:8", "sinks:3", "span"]),
        ("sinkscope probe tiny --placements prefix,s", ["prefix,suffix", "prefix,sink:1"]),
        ("sinkscope unlearn tiny-w", [name for name in named_recipes() if name.startswith("tiny-w")]),
        ("sinkscope locate runs/", []),
    ],
)
def test_bash(line: str, expected: list[str], complete) -> None:
    assert complete("bash", line).split() == expected


def test_zsh_and_fish_show_what_a_recipe_is(complete) -> None:
    first_line = named_recipes()["tiny/npo"].read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    assert f'"tiny/npo":"{first_line}"' in complete("zsh", "sinkscope unlearn tiny/npo")
    assert f"tiny/npo\t{first_line}" in complete("fish", "sinkscope unlearn tiny/npo").splitlines()
    assert complete("zsh", "sinkscope locate runs/").strip() == "_files"


def test_the_installed_command_completes_in_bash_and_loads_no_torch(tmp_path: Path) -> None:
    """A script as pip writes one for the entry point; bash sources what it prints and asks it."""
    module, name = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"][
        "sinkscope"
    ].split(":")
    script = tmp_path / "sinkscope"
    at_exit = (
        "import atexit, sys\natexit.register(lambda: 'torch' in sys.modules and print('loaded-torch'))\n"
    )
    script.write_text(
        f"#!{sys.executable}\n{at_exit}from {module} import {name}\n{name}()\n", encoding="utf-8"
    )
    script.chmod(0o755)
    line = "COMP_WORDS=(sinkscope unlearn tiny/rmu); COMP_CWORD=2; _sinkscope_completion sinkscope"
    asked = f'set -eu; eval "$(_SINKSCOPE_COMPLETE=source_bash sinkscope)"; {line}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["tiny/rmu", "tiny/rmu-backdoor"]
