"""Registries of what a plugin can add by name: objectives, metrics, benchmarks."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Generic, TypeVar

from sinkscope.errors import UserError, first_line, suggest

T = TypeVar("T")


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

    def add(self, name: str, value: T) -> T:
        """Register `value`.

        Raises:
            UserError: the name is registered already.
        """
        if name in self._values:
            raise self._error(f"{self._kind} {name!r} is registered twice; choose another name")
        self._values[name] = value
        return value

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of `add`."""
        return lambda value: self.add(name, value)

    def __getitem__(self, name: str) -> T:
        """The value of this name.

        Raises:
            UserError: the name is unknown; the message has the nearest known name.
        """
        self._load_entry_points()
        if name not in self._values:
            hint = suggest(name, self._values, "use one of")
            raise self._error(f"{self._kind} {name!r} is unknown; {hint}")
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        self._load_entry_points()
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(self._values)

    def names(self) -> list[str]:
        """All registered names."""
        return list(self)

    def items(self) -> ItemsView[str, T]:
        """All names with their values."""
        self._load_entry_points()
        return self._values.items()

    def _load_entry_points(self) -> None:
        group, self._group = self._group, None  # loading a plugin reads the registry again
        for point in entry_points(group=group) if group else ():
            try:
                value = point.load()
            except Exception as error:  # any error of somebody else's module
                message = f"plugin {point.value} cannot be loaded: {first_line(error)}; fix or uninstall it"
                raise self._error(message) from error
            if not isinstance(value, ModuleType):
                self.add(point.name, value)
