"""sinkscope: measure attention sinks, and test whether unlearning hides a backdoor behind them.

    import sinkscope

    model = sinkscope.load("tiny")
    passages = sinkscope.tokenize_passages(["some text …"], model, max_length=64)
    sinks = sinkscope.locate(model, passages)
    print(sinks.ranked().head())

The names in `__all__` are those of `__init__.pyi`; a module is imported when one of its names is first used.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULES = {name: module for module, name in re.findall(r"^from (\S+) import (\w+) as", _STUB, re.M)}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("sinkscope.io.run_directory").versions()["sinkscope"]
    if name == "plots":
        return import_module("sinkscope.plots")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'sinkscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
