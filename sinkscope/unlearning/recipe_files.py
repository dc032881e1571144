"""Built-in recipes by name, and files of recipes; without torch, as completion in the shell lists them."""

from __future__ import annotations

from pathlib import Path

from sinkscope.errors import RecipeError, suggest

RECIPES = Path(__file__).parent.parent / "recipes"


def named_recipes() -> dict[str, Path]:
    """The built-in recipes: name → file."""
    files = (path for path in sorted(RECIPES.glob("*/*.yaml")) if path.parent.name != "studies")
    return {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in files}


def recipe_summaries() -> dict[str, str]:
    """The first line of each built-in recipe, by name."""
    return {
        name: path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        for name, path in named_recipes().items()
    }


def recipe_file(recipe: Path | str, directory: Path = Path()) -> Path:
    """The file of a recipe, given as a path from `directory` or by its name; a file comes before a name.

    Raises:
        RecipeError: it is neither a file nor a known name.
    """
    path, known = directory / recipe, named_recipes()
    if str(recipe) in known and not path.is_file():
        return known[str(recipe)]
    if not path.suffix and not path.exists():
        hint = suggest(str(recipe), known, "known names")
        raise RecipeError(f"recipe {str(recipe)!r} is neither a file nor a known name; {hint}")
    return path
