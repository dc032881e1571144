"""Recipe files that come with the package, by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from sinkscope.errors import RecipeError

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
