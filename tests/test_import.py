"""Importing the package: quick, without side effects, and in one direction."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sinkscope

ROOT = Path(__file__).parents[1]
IMPORT_ALL = """
import importlib, json, logging, pkgutil
import matplotlib
before = (matplotlib.rcParams.copy(), matplotlib.rcParams._get_backend_or_none())
import transformers, datasets, huggingface_hub
levels = {name: logging.getLogger(name).level for name in ("", "transformers", "datasets", "huggingface_hub")}
import sinkscope
for module in pkgutil.walk_packages(sinkscope.__path__, "sinkscope."):
    skipped = ("__main__", ".main", ".cli", "ray_executor", "lm_eval_tasks")
    if not module.name.endswith(skipped):
        importlib.import_module(module.name)
after = (matplotlib.rcParams.copy(), matplotlib.rcParams._get_backend_or_none())
same = levels == {name: logging.getLogger(name).level for name in levels}
print(json.dumps({"rc": before == after, "levels": same}))
"""


def _run(code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=ROOT).stdout


def test_importing_every_module_changes_no_global_state() -> None:
    assert json.loads(_run(IMPORT_ALL)) == {"rc": True, "levels": True}


@pytest.mark.parametrize("arguments", [["-c", "import sinkscope"], ["-m", "sinkscope", "--help"]])
def test_import_and_help_take_less_than_half_a_second_of_processor_time(arguments: list[str]) -> None:
    """On a slow machine: less than twice what the libraries of a command line take there on their own."""
    libraries = _processor_time(["-c", "import pydantic, rich.console, typer, yaml"])
    assert _processor_time(arguments) < max(0.5, 2 * libraries)


def _processor_time(arguments: list[str]) -> float:
    """The least of three runs, in user and system time, so that other work on the machine matters little."""
    code = (
        "import resource, subprocess, sys\n"
        f"subprocess.run([sys.executable, *{arguments!r}], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    return min(float(_run(code)) for _ in range(3))


def test_public_names_are_documented_and_exist() -> None:
    assert len(sinkscope.__all__) <= 40
    for name in sinkscope.__all__:
        assert getattr(sinkscope, name).__doc__, name


def test_every_package_has_a_docstring() -> None:
    for module in pkgutil.iter_modules(sinkscope.__path__):
        path = Path(sinkscope.__path__[0]) / module.name / "__init__.py"
        if module.ispkg:
            assert path.read_text(encoding="utf-8").startswith('"""'), path
