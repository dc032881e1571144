"""Plugins: registries of objectives, metrics and benchmarks, and the Python files that add to them.

A plugin is named on the command line (`--plugin my_losses.py`) or installed as an entry point; a recipe or
study alone can never execute code. The source of what a plugin registers is hashed into the identity of the
runs that use it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import secrets
import sys
import traceback
from collections.abc import ItemsView, Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from sinkscope.errors import PluginError, UserError, first_line, suggest

T = TypeVar("T")
UNVERSIONED = sys.stdlib_module_names | {"sinkscope"}
"""Packages whose source is no part of a plugin."""
FILE_MODULE = "sinkscope_plugin_"
"""How the names of modules begin that `load_plugins` makes."""
SESSION = secrets.token_bytes(32)
"""Stands for source that is in no file, as in an interactive session."""


class Registry(Generic[T]):
    """Values by name, in the order of their registration, with those that installed packages add.

    An entry point of `group` names a module that registers its values when it is imported, or a value, which
    gets the name of the entry point. Entry points are loaded when the registry is first read.

    Args:
        kind: what is registered, for error messages ("objective").
        error: the exception that an unknown name raises.
        group: the group of entry points.
    """

    def __init__(self, kind: str, error: type[UserError], group: str | None = None) -> None:
        self._kind = kind
        self._error = error
        self._group = group
        self._values: dict[str, T] = {}
        self._hashes: dict[str, str | None] = {}

    def add(self, name: str, value: T, module: str | None = None) -> None:
        """Register `value`, which belongs to `module`, by default the one that the call comes from.

        Raises:
            UserError: the name is registered already.
        """
        if name in self._values:
            raise self._error(f"{self._kind} {name!r} is registered twice; choose another name")
        self._values[name] = value
        self._hashes[name] = _hash_source([module or _calling_module(), *_modules_of(value)])

    def plugin_hashes(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of the source of those that are not sinkscope's own, by name.

        It is taken of the files that register a value and define its functions, when it is registered. What
        is in no file has another hash in every process.
        """
        hashes = {name: self._hashes.get(name) for name in names}
        return {name: value for name, value in hashes.items() if value is not None}

    def __getitem__(self, name: str) -> T:
        """The value of this name.

        Raises:
            UserError: the name is unknown; the message has the nearest known name.
        """
        values = self._loaded()
        if name not in values:
            raise self._error(f"{self._kind} {name!r} is unknown; {suggest(name, values, 'use one of')}")
        return values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def items(self) -> ItemsView[str, T]:
        """All names with their values."""
        return self._loaded().items()

    def _loaded(self) -> dict[str, T]:
        """All values, after the entry points are loaded."""
        group, self._group = self._group, None  # loading a plugin reads the registry again
        for point in entry_points(group=group) if group else ():
            try:
                value = point.load()
            except Exception as error:  # any error of somebody else's module
                message = f"plugin {point.value} cannot be loaded: {first_line(error)}; fix or uninstall it"
                raise self._error(message) from error
            if not isinstance(value, ModuleType):
                self.add(point.name, value, point.module)
        return self._values


def load_plugins(paths: Iterable[Path]) -> None:
    """Execute each file once per process.

    Raises:
        PluginError: a file is missing, or fails while it is executed.
    """
    for path in paths:
        if not path.is_file():
            raise PluginError(f"plugin {path} is not a file; give a Python file that registers something")
        name = f"{FILE_MODULE}{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
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


def find_plugin_line(error: BaseException) -> str | None:
    """Where in a file of `load_plugins` an error was raised, or passed through, as `FILE, line N`."""
    lines = [
        f"{frame.f_code.co_filename}, line {number}"
        for frame, number in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith(FILE_MODULE)
    ]
    return lines[-1] if lines else None


def describe_bug(error: BaseException) -> str:
    """One line on an error that no message was written for, with the plugin's line if it is a plugin's."""
    what = f"{type(error).__name__}: {first_line(error)}"
    line = find_plugin_line(error)
    return f"internal error: {what}" if line is None else f"plugin {line}: {what}; correct it"


def _calling_module() -> str:
    """The first module outside of sinkscope on the stack: while sinkscope is imported, the import system."""
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "sinkscope":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__"))


def _modules_of(value: Any) -> Iterator[str]:
    """Modules of a function or class, of what it wraps, and of those in a partial or a dataclass.

    The module of a decorator is that of the wrapper's globals.
    """
    if isinstance(value, functools.partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif hasattr(value, "__wrapped__"):
        parts = [value.__wrapped__]
    else:
        parts = list(vars(value).values()) if dataclasses.is_dataclass(value) else []
    if callable(value) and not isinstance(value, functools.partial):
        yield str(getattr(value, "__module__", None) or type(value).__module__)
        if function_globals := getattr(value, "__globals__", None):
            yield str(function_globals.get("__name__"))
    for part in filter(callable, parts):
        yield from _modules_of(part)


def _hash_source(modules: Iterable[str]) -> str | None:
    hashes = []
    for name in modules:
        if name.partition(".")[0] in UNVERSIONED:
            continue
        try:
            source = Path(str(sys.modules[name].__file__)).read_bytes()
        except (KeyError, AttributeError, OSError):
            source = SESSION
        hashes.append(hashlib.sha256(source).hexdigest())
    hashes = list(dict.fromkeys(hashes))
    if len(hashes) <= 1:
        return hashes[0] if hashes else None
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
