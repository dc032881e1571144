"""Hashes of plugins: of everything that a registered object calls, the same in every process."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sinkscope.errors import PluginError
from sinkscope.evaluation.metrics import METRICS, metric_plugin_hashes
from sinkscope.plugins import load_plugins, plugin_hash
from sinkscope.unlearning.objectives import OBJECTIVES
from sinkscope.unlearning.recipe import Recipe

ROOT = Path(__file__).parents[2]
PLUGIN = """
import functools
from dataclasses import replace

from sinkscope.evaluation.metrics import METRICS, _of_likelihoods
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
PARTS = {
    "partial": changed(value=functools.partial(value, scale=2.0)),
    "instance": changed(value=Value()),
    "lambda": changed(value=lambda item, output: 1.0),
    "method": changed(value=Value().__call__),
    "wrapper": changed(value=wrapper),
    "closure": changed(value=_of_likelihoods(lambda likelihoods: 1.0)),
    "partial of sinkscope": changed(value=functools.partial(METRICS["verbmem"].value)),
    "items": changed(make_items=lambda *arguments: METRICS["verbmem"].make_items(*arguments)),
    "request": changed(request=lambda *arguments: METRICS["verbmem"].request(*arguments)),
    "scale": changed(scale=replace(scale, transform=lambda mean: mean)),
    "prepare": replace(OBJECTIVES["rmu"], prepare=lambda *arguments: OBJECTIVES["rmu"].prepare(*arguments)),
    "config": replace(OBJECTIVES["rmu"], config=Config),
}
"""
SCRIPT = """
import sys
from pathlib import Path
from sinkscope.plugins import load_plugins, plugin_hash

load_plugins([Path(sys.argv[1])])
(module,) = (module for name, module in sys.modules.items() if name.startswith("sinkscope_plugin_"))
print({name: plugin_hash(part) for name, part in module.PARTS.items()})
"""


def load_parts(path: Path, text: str = PLUGIN) -> dict[str, Any]:
    path.write_text(text)
    before = set(sys.modules)
    load_plugins([path])
    (name,) = {each for each in set(sys.modules) - before if each.startswith("sinkscope_plugin_")}
    return sys.modules[name].PARTS


def test_every_part_of_a_plugin_is_hashed_by_its_source(tmp_path: Path) -> None:
    hashes = {name: plugin_hash(part) for name, part in load_parts(tmp_path / "a.py").items()}
    assert hashes.pop("partial of sinkscope") is None
    assert None not in hashes.values()
    version = f"{PLUGIN}# {tmp_path}"
    changed = {name: plugin_hash(part) for name, part in load_parts(tmp_path / "b.py", version).items()}
    assert all(changed[name] != found for name, found in hashes.items())


def test_hashes_are_the_same_in_two_processes(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "plugin.py")]
    outputs = {
        subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_what_is_registered_by_sinkscope_has_no_hash() -> None:
    registered = [*dict(METRICS.items()).values(), *dict(OBJECTIVES.items()).values()]
    own = [each for each in registered if plugin_hash(each) is None]
    assert own == registered and metric_plugin_hashes(["verbmem"]) == {} == Recipe().plugin_hashes()


def test_arguments_of_a_partial_are_plain_values() -> None:
    value = METRICS["verbmem"].value

    def with_argument(argument: Any) -> str | None:
        return plugin_hash(replace(METRICS["verbmem"], value=functools.partial(value, option=argument)))

    assert with_argument(1.0) == with_argument(1.0) != with_argument(2.0)
    with pytest.raises(PluginError, match="argument of type object"):
        with_argument(object())


def test_code_without_a_source_is_hashed_without_addresses() -> None:
    def define(number: int) -> Any:
        namespace: dict[str, Any] = {"__name__": "interactive"}
        exec(f"def value(item, output):\n    return (lambda: {number})()", namespace)
        return namespace["value"]

    assert plugin_hash(define(3)) == plugin_hash(define(3)) != plugin_hash(define(4))
