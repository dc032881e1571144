"""YAML that people write: safe, with every key once in its mapping, and bounded however its aliases repeat one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sinkscope.errors import UserError
from sinkscope.io.readers import MAX_CONFIG_BYTES, is_text, read_text

MOST = 100_000
"""Values in one file, every alias written out."""
DIGITS = 1000
"""Characters of the longest number."""
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read(path: Path, what: str, kind: type[UserError]) -> Any:
    """What a YAML file says.

    Raises:
        `kind`: it cannot be read, or is refused by `parse`.
    """
    text = read_text(path, what, kind, "give a YAML file", MAX_CONFIG_BYTES)
    try:
        return parse(text)
    except ValueError as error:
        raise kind(f"{what} {path} cannot be read: {error}; give a YAML file") from error


def parse(text: str) -> Any:
    """What YAML says.

    Raises:
        ValueError: it is not YAML, names a type that only code can make, says a key twice, or comes to too much; in one line.
    """
    return _parsed(text, make=True)


def check(text: str) -> None:
    """Whether YAML is within bounds, whatever types it names; nothing is made of it.

    Raises:
        ValueError: as `parse`, but for types that only code can make.
    """
    _parsed(text, make=False)


def _parsed(text: str, make: bool) -> Any:
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {})
            return loader.construct_document(node) if make else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a node stands for, every alias written out; 0 in `counted` marks one that is being counted."""
    if id(node) in counted:
        if not counted[id(node)]:
            raise ValueError(f"{_line(node)}: a value holds itself")
        return counted[id(node)]
    counted[id(node)] = 0
    total = 1
    if isinstance(node, yaml.ScalarNode):
        if not is_text(node.value):
            raise ValueError(f"{_line(node)}: {ascii(node.value)[:80]} is no text")
        if node.tag in NUMBERS and len(node.value) > DIGITS:
            raise ValueError(
                f"{_line(node)}: {node.value[:20]}… is a number of {len(node.value):,} characters"
            )
    elif isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    raise ValueError(f"{_line(key)}: the key {key.value!r} is there twice")
                known.add(key.value)
            total += _count(key, counted) + _count(value, counted)
    else:
        total += sum(_count(each, counted) for each in node.value)
    if total > MOST:
        raise ValueError(f"{_line(node)}: it comes to more than {MOST:,} values")
    counted[id(node)] = total
    return total


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
