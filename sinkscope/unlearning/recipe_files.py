"""Built-in recipes by name, and files of recipes.

Completion in the shell lists them, so nothing here loads torch.
"""

from __future__ import annotations

from pathlib import Path

from sinkscope.errors import RecipeError, suggest

RECIPES = Path(__file__).parent.parent / "recipes"


def named_recipes() -> dict[str, Path]:
    """The built-in recipes: name → file."""
    return {
        path.relative_to(RECIPES).with_suffix("").as_posix(): path
        for path in sorted(RECIPES.glob("*/*.yaml"))
        if path.parent.name != "studies"
    }


def recipe_summaries() -> dict[str, str]:
    """The first line of each built-in recipe, by name."""
    return {
        name: path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        for name, path in named_recipes().items()
    }


def recipe_file(path: Path | str) -> Path:
    """The file of a recipe, given as a path or by its name.

    Raises:
        RecipeError: it is neither a file nor a known name.
    """
    known = named_recipes()
    if Path(path).is_file() or str(path) not in known:
        if not Path(path).suffix and not Path(path).exists():
            hint = suggest(str(path), known, "known names")
            raise RecipeError(f"recipe {str(path)!r} is neither a file nor a known name; {hint}")
        return Path(path)
    return known[str(path)]
