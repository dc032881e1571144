"""Behavior that all commands share: output, version, empty arguments, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import sinkscope
from sinkscope.cli.main import name_options
from sinkscope.errors import OutputError
from tests.commands import check_refused, run


def test_an_output_directory_with_other_results_is_left_alone(
    checkpoints, notes, tmp_path, capsys, monkeypatch
) -> None:
    out = tmp_path / "out"
    assert run(capsys, monkeypatch, "locate", checkpoints["llama"], "--text", notes, "--out", out)[0] == 0
    before = (out / "run.json").read_bytes()
    code, _, err = run(capsys, monkeypatch, "locate", checkpoints["gpt2"], "--text", notes, "--out", out)
    assert code == 2
    assert "another run's results" in err
    assert (out / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", ""], "an argument is empty"),
        (["locate", "tiny", "--text", ""], "--text is"),
        (["recipes", "--out="], "--out is"),
    ],
)
def test_an_empty_argument_is_not_the_current_directory(
    arguments, message, tmp_path, capsys, monkeypatch
) -> None:
    check_refused(run(capsys, monkeypatch, *arguments), message, tmp_path / "out")


def _subprocess_arguments(**variables: str) -> dict[str, object]:
    return {
        "args": [sys.executable, "-m", "sinkscope", "recipes"],
        "env": os.environ | variables,
        "stderr": subprocess.PIPE,
    }


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_one_line(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(**_subprocess_arguments(PYTHONUNBUFFERED=unbuffered), stdout=full)
    assert (done.returncode, done.stderr) == (
        2,
        b"sinkscope: standard output cannot be written (No space left on device); send it elsewhere\n",
    )


def test_characters_that_the_terminal_cannot_encode_are_escaped() -> None:
    done = subprocess.run(**_subprocess_arguments(PYTHONIOENCODING="ascii"), stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u" in done.stdout


def test_version_and_public_names(capsys, monkeypatch) -> None:
    assert run(capsys, monkeypatch, "--version") == (0, f"sinkscope {sinkscope.__version__}\n", "")
    assert set(dir(sinkscope)) == {*sinkscope.__all__, "__version__"}


@pytest.mark.parametrize(
    "command",
    [["quickstart"], ["audit", "tiny", "--triggers", "x"], ["tiny", "build"], ["tiny", "build-wmdp"]],
)
def test_a_seed_beyond_its_bounds_is_refused(command, tmp_path, capsys, monkeypatch) -> None:
    code, _, err = run(capsys, monkeypatch, *command, "--seed", 2**32, "--out", tmp_path / "out")
    assert code == 2 and "--seed" in err and "4294967295" in err
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_the_resolved_recipe(tmp_path, capsys, monkeypatch) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3")
    code, stdout, _ = run(
        capsys, monkeypatch, "unlearn", recipe, "--set", "trigger.placement=infix", "--dry-run", "--json"
    )
    assert code == 0
    resolved = json.loads(stdout)["recipe"]
    assert resolved["seed"] == 3
    assert resolved["trigger"]["placement"] == "infix"
    code, stdout, _ = run(
        capsys, monkeypatch, "unlearn", recipe, "--set", "trigger.placement=infix", "--dry-run"
    )
    recipe.write_text(stdout)
    code, again, _ = run(capsys, monkeypatch, "unlearn", recipe, "--dry-run", "--json")
    assert (code, json.loads(again)["recipe"]) == (0, resolved), "what a dry run prints is a recipe"


def test_the_traceback_can_be_shown(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "run.json").write_text("{")
    code, _, err = run(capsys, monkeypatch, "report", tmp_path)
    assert code == 2 and err.count("\n") == 1
    monkeypatch.setenv("SINKSCOPE_TRACEBACK", "1")
    with pytest.raises(OutputError, match="is damaged") as raised:
        run(capsys, monkeypatch, "report", tmp_path)
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["locate", "tiny", "--txt", "x"], "No such option: --txt"),
        (["locate"], "Missing argument"),
        (["unknown"], "No such command 'unknown'"),
        (["locate", "tiny", "--text", "x", "--dtype", "int4"], "is not one of 'float32'"),
    ],
)
def test_usage_errors_are_one_line(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    check_refused(run(capsys, monkeypatch, *arguments), message, tmp_path / "out")


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"]])
def test_a_reader_that_leaves_early_is_no_error(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sinkscope", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() in (0, 1)  # the code is rich's


INTERRUPTED_OBJECT = """
from importlib import import_module

class File:  # like one of h5netcdf
    def __init__(self):
        raise KeyboardInterrupt
        self.is_open = True

    def __del__(self):
        assert self.is_open

module = import_module("sinkscope.cli.main")
module._run_command = lambda arguments: File()
module.main()
"""


def test_after_an_interrupt_destructors_print_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_OBJECT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "sinkscope: stopped; no incomplete results are left\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_out_of_memory_is_one_line_with_the_fix(error, capsys, monkeypatch) -> None:
    def fail(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr(import_module("sinkscope.cli.main"), "_run_command", fail)
    code, _, err = run(capsys, monkeypatch, "env")
    assert code == 2
    assert err.startswith("sinkscope: out of memory; lower --batch-size")


def test_the_backend_of_a_notebook_is_not_used() -> None:
    script = "import sinkscope.cli.main, matplotlib.pyplot as plt; print(plt.get_backend())"
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.missing"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip().lower() == "agg", done.stderr


def test_messages_name_options_of_the_running_command_only(monkeypatch) -> None:
    message = "set `bos`, or leave out `query_fraction`"
    monkeypatch.setattr("sys.argv", ["sinkscope", "locate", "tiny"])
    assert name_options(message) == "set --bos, or leave out --query-fraction"
    monkeypatch.setattr("sys.argv", ["sinkscope", "unlearn", "tiny/npo"])
    assert name_options(message) == message, "there these are keys of the recipe"
    monkeypatch.setattr("sys.argv", ["sinkscope", "benchmark", "check", "data"])
    assert name_options("set `model`") == "set --model"
