"""Plugins: Python files that register objectives, metrics or benchmarks for this process.

A plugin is named on the command line (`--plugin my_losses.py`) or installed as an entry point; a recipe or
study alone can never execute code. What a plugin registers is hashed into the identity of the runs that use
it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from sinkscope.errors import PluginError

PLAIN = (type(None), bool, int, float, str, bytes)
LIBRARIES = sys.stdlib_module_names | {"jaxtyping", "torch"}
"""Modules whose decorators are no part of a plugin."""


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
    """SHA-256 of the source files that define a registered object; None if all of it is sinkscope's own.

    These are the files of its class, of its fields that are callables or classes, and of the functions that
    they wrap. Without a source file (in an interactive session) the source text is hashed, or the compiled
    code. What is built into Python is left out.

    Raises:
        PluginError: a callable has no source, or a `functools.partial` an argument that is not a plain value.
    """
    sources = _sources(registered, set())
    hashes = list(dict.fromkeys(hashlib.sha256(source).hexdigest() for source in sources))
    if len(hashes) <= 1:
        return hashes[0] if hashes else None
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def plugin_hashes(registered: Mapping[str, Any]) -> dict[str, str]:
    """`plugin_hash` of the objects that are not sinkscope's own, by name."""
    hashes = {name: plugin_hash(part) for name, part in registered.items()}
    return {name: value for name, value in hashes.items() if value is not None}


def _sources(part: Any, seen: set[int]) -> Iterator[bytes]:
    """Sources of an object and of those that it consists of, in a stable order."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, functools.partial):
        parts: list[Any] = [part.func]
        if part.args or part.keywords:
            yield repr([_plain(part.args, parts), _plain(part.keywords, parts)]).encode()
    elif inspect.ismethod(part):
        parts = [part.__self__, part.__func__]
    elif inspect.isfunction(part):
        parts = _wrapped(part)
        if not (hasattr(part, "__wrapped__") and _package(part) in LIBRARIES):
            yield from _source(part)
    elif isinstance(part, type) or inspect.isroutine(part):
        parts = []
        yield from _source(part)
    else:
        fields = dataclasses.fields(part) if dataclasses.is_dataclass(part) else ()
        values = [getattr(part, field.name) for field in fields]
        parts = [type(part), *(each for each in values if callable(each) or dataclasses.is_dataclass(each))]
    for each in parts:
        yield from _sources(each, seen)


def _package(part: Any) -> str:
    """The package that defines a function or class; of a function, not that of what it wraps."""
    module = part.__globals__.get("__name__") if inspect.isfunction(part) else part.__module__
    return str(module).partition(".")[0]


def _wrapped(function: Any) -> list[Any]:
    """What a decorator wraps, and what sinkscope's own functions are made from."""
    parts = [function.__wrapped__] if hasattr(function, "__wrapped__") else []
    if _package(function) == "sinkscope":
        closure = inspect.getclosurevars(function).nonlocals.values()
        parts += [each for each in closure if callable(each)]
    return parts


def _plain(value: Any, parts: list[Any]) -> Any:
    """An argument of a partial, with its callables moved to `parts`."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each, parts) for each in value]
    if isinstance(value, dict) and all(isinstance(key, PLAIN) for key in value):
        return [(key, _plain(each, parts)) for key, each in value.items()]
    if callable(value):
        parts.append(value)
        return "callable"
    raise PluginError(
        f"a plugin registers a partial with an argument of type {type(value).__name__}, whose version is "
        "unknown; give numbers and texts, or write a function"
    )


def _source(part: Any) -> Iterator[bytes]:
    """The source of one function or class; none if it is sinkscope's or Python's own."""
    package = _package(part)
    if package == "sinkscope" or package in sys.stdlib_module_names:
        return
    try:
        source = Path(inspect.getfile(part)).read_bytes()
    except (OSError, TypeError):
        try:
            source = inspect.getsource(part).encode()
        except (OSError, TypeError):
            functions = [part, *vars(part).values()] if isinstance(part, type) else [part]
            codes = [each.__code__ for each in functions if inspect.isfunction(each)]
            if not codes:
                raise PluginError(
                    f"a plugin registers {part.__name__!r}, which has no source; wrap it in a function of "
                    "the plugin's file"
                ) from None
            source = b"".join(map(_code, codes))
    yield source


def _code(code: CodeType) -> bytes:
    """Compiled code with its names and constants, without addresses."""
    return code.co_code + repr((code.co_names, [_constant(each) for each in code.co_consts])).encode()


def _constant(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    return _code(value) if isinstance(value, CodeType) else value
