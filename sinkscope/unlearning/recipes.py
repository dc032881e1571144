"""Recipe files: those that come with the package, by name, and changes to their keys."""

from __future__ import annotations

import copy
import difflib
from pathlib import Path
from typing import Any

from sinkscope.errors import RecipeError
from sinkscope.io import strict_yaml

NAMED = Path(__file__).parent.parent / "recipes"


def named_recipes() -> dict[str, Path]:
    """The recipes that come with the package: name → file."""
    return {
        path.relative_to(NAMED).with_suffix("").as_posix(): path
        for path in sorted(NAMED.rglob("*.yaml"))
        if path.parent.name != "studies"
    }


def recipe_summaries() -> dict[str, str]:
    """The first line of each recipe that comes with the package, by name."""
    return {
        name: path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        for name, path in named_recipes().items()
    }


def recipe_file(path: Path | str) -> Path:
    """The file of a recipe that is given as a file or by its name."""
    known = named_recipes()
    if Path(path).is_file() or str(path) not in known:
        if not Path(path).suffix and not Path(path).exists():
            near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(known)}"
            raise RecipeError(f"recipe {str(path)!r} is neither a file nor a known name; {mend}")
        return Path(path)
    return known[str(path)]


def apply_overrides(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with dotted keys set; the original stays as it is."""
    result = copy.deepcopy(values)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise RecipeError(f"recipe key {dotted!r}: {parent!r} is a value, not a group of keys")
        target[last] = copy.deepcopy(value)
    return result


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """`["a.b=c"]` as `{"a.b": c}`, values read as YAML."""
    changes = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise RecipeError(
                f"--set {assignment!r} is not of the form key=value, as in --set trigger.placement=infix"
            )
        try:
            changes[key.strip()] = strict_yaml.parse(value)
        except ValueError as error:
            raise RecipeError(
                f"--set {assignment[:80]!r}: the value cannot be read as YAML ({error}); quote it"
            ) from error
    return changes
