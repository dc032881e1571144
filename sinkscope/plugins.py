"""Plugins: Python files that register objectives, metrics or benchmarks for this process.

A plugin is named on the command line (`--plugin my_losses.py`) or installed as an entry point; a recipe or
study alone can never execute code. What a plugin registers is hashed into the identity of the runs that use
it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sinkscope.errors import PluginError


def load_plugins(paths: Iterable[Path]) -> None:
    """Execute each file once per process.

    Raises:
        PluginError: a file is missing, or fails while it is executed.
    """
    for path in paths:
        if not path.is_file():
            raise PluginError(f"plugin {path} is not a file; give a Python file that registers something")
        name = f"sinkscope_plugin_{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise PluginError(f"plugin {path} is not a Python file; give one whose name ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise PluginError(f"plugin {path} fails: {type(error).__name__}: {error}; correct it") from error


def plugin_hash(registered: Any) -> str | None:
    """SHA-256 of the source file that defines a registered object; None for sinkscope's own.

    An object without a source file (defined in an interactive session) is hashed by its source text, or by
    its compiled code where that is not available either.
    """
    module = inspect.getmodule(registered)
    if module is not None and module.__name__.partition(".")[0] == "sinkscope":
        return None
    try:
        source = Path(inspect.getfile(registered)).read_bytes()
    except (OSError, TypeError):
        try:
            source = inspect.getsource(registered).encode()
        except (OSError, TypeError):
            code = getattr(registered, "__code__", None)
            source = (
                repr(registered).encode() if code is None else code.co_code + repr(code.co_consts).encode()
            )
    return hashlib.sha256(source).hexdigest()
