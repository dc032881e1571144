"""Hashes of plugins: of every file that registers something or defines it, the same in every process."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sinkscope.errors import RecipeError
from sinkscope.evaluation.metrics import METRICS
from sinkscope.plugins import Registry, load_plugins
from sinkscope.unlearning.objectives import OBJECTIVES
from sinkscope.unlearning.recipe import Recipe

ROOT = Path(__file__).parents[2]
PLUGIN = """
import functools
from dataclasses import replace

from sinkscope.errors import UserError
from sinkscope.evaluation.metrics import METRICS, _of_likelihoods
from sinkscope.plugins import Registry
from sinkscope.unlearning.objectives import OBJECTIVES, RMUConfig


class Value:
    def __call__(self, item, output):
        return 1.0


class Config(RMUConfig):
    pass


def value(item, output, scale=1.0):
    return scale


@functools.wraps(METRICS["verbmem"].value)
def wrapper(item, output):
    return 2 * METRICS["verbmem"].value(item, output)


def changed(**fields):
    return replace(METRICS["verbmem"], **fields)


scale = METRICS["verbmem"].scale
PARTS = Registry("part", UserError)
PARTS.add("partial", changed(value=functools.partial(value, scale=2.0)))
PARTS.add("instance", changed(value=Value()))
PARTS.add("lambda", changed(value=lambda item, output: 1.0))
PARTS.add("method", changed(value=Value().__call__))
PARTS.add("wrapper", changed(value=wrapper))
PARTS.add("closure", changed(value=_of_likelihoods(lambda likelihoods: 1.0)))
PARTS.add("unchanged", METRICS["verbmem"])
PARTS.add("scale", changed(scale=replace(scale, transform=lambda mean: mean)))
PARTS.add("config", replace(OBJECTIVES["rmu"], config=Config))
"""
SCRIPT = """
import sys
from pathlib import Path
from sinkscope.plugins import load_plugins

load_plugins([Path(sys.argv[1])])
(module,) = (module for name, module in sys.modules.items() if name.startswith("sinkscope_plugin_"))
print(module.PARTS.plugin_hashes(module.PARTS))
"""
WITHOUT_FILE = """
from sinkscope.errors import UserError
from sinkscope.plugins import Registry

parts = Registry("part", UserError)
parts.add("function", lambda: 1)
print(parts.plugin_hashes(parts))
"""


def load_parts(path: Path, text: str = PLUGIN) -> Registry[object]:
    path.write_text(text)
    before = set(sys.modules)
    load_plugins([path])
    (name,) = {each for each in set(sys.modules) - before if each.startswith("sinkscope_plugin_")}
    return sys.modules[name].PARTS


def run_script(*arguments: str, seed: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def test_everything_that_a_plugin_registers_is_hashed_by_its_source(tmp_path: Path) -> None:
    parts = load_parts(tmp_path / "a.py")
    hashes = parts.plugin_hashes(parts)
    assert set(hashes) == set(parts)
    changed = load_parts(tmp_path / "b.py", f"{PLUGIN}# {tmp_path}").plugin_hashes(parts)
    assert all(changed[name] != found for name, found in hashes.items())


def test_the_file_that_defines_a_function_is_hashed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry[object]("part", RecipeError)
    for number in (1, 2):
        (tmp_path / f"helper_{number}.py").write_text(f"def value(item, output):\n    return {number}\n")
        value = importlib.import_module(f"helper_{number}").value
        registry.add(f"function {number}", replace(METRICS["verbmem"], value=value))
        registry.add(f"partial {number}", replace(METRICS["verbmem"], value=functools.partial(value)))
    hashes = registry.plugin_hashes(registry)
    assert hashes["function 1"] == hashes["partial 1"] != hashes["function 2"] == hashes["partial 2"]


def test_hashes_are_the_same_in_two_processes(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    assert len({run_script(SCRIPT, str(tmp_path / "plugin.py"), seed=seed) for seed in "12"}) == 1


def test_what_is_in_no_file_has_another_hash_in_every_process() -> None:
    assert len({run_script(WITHOUT_FILE, seed="1") for _ in range(2)}) == 2


def test_what_sinkscope_registers_has_no_hash() -> None:
    assert METRICS.plugin_hashes(METRICS) == {} == OBJECTIVES.plugin_hashes(OBJECTIVES)
    assert Recipe().plugin_hashes() == {}


def test_a_decorator_and_an_argument_of_a_partial_in_other_files_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deco_part.py").write_text(
        "import functools\n"
        "def deco(function):\n"
        "    @functools.wraps(function)\n"
        "    def wrapper(*args):\n"
        "        return function(*args)\n"
        "    return wrapper\n"
    )
    (tmp_path / "helper_part.py").write_text("def helper(x):\n    return x\n")
    (tmp_path / "main_part.py").write_text(
        "import functools\nfrom deco_part import deco\nfrom helper_part import helper\n"
        "@deco\ndef loss(x):\n    return x\n"
        "def outer(function, x):\n    return function(x)\n"
        "with_helper = functools.partial(outer, helper)\n"
    )
    import main_part  # type: ignore[import-not-found]

    from sinkscope.plugins import _modules_of

    assert set(_modules_of(main_part.loss)) == {"main_part", "deco_part"}
    assert set(_modules_of(main_part.with_helper)) == {"main_part", "helper_part"}
