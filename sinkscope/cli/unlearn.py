"""The commands `sinkscope unlearn` and `sinkscope recipes`: train one run from a recipe, print recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli.console import print_result, progress
from sinkscope.cli.options import JsonOpt, OutOpt, PluginOpt
from sinkscope.errors import RecipeError
from sinkscope.plugins import load_plugins


def recipe_names() -> list[tuple[str, str]]:
    """Recipes that come with the package, each with its first line."""
    from sinkscope.unlearning.recipe_files import recipe_summaries

    return list(recipe_summaries().items())


RecipeArg = Annotated[
    str, typer.Argument(help="a YAML file, or a name of `sinkscope recipes`", autocompletion=recipe_names)
]
SetOpt = Annotated[
    list[str] | None, typer.Option("--set", help="change one key, as in trigger.placement=infix; repeatable")
]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="print the recipe and its steps, memory and time")]
CheckpointOpt = Annotated[int | None, typer.Option(min=1, help="steps between them; by default an epoch")]
ShowOpt = Annotated[
    str | None,
    typer.Option(help="print this recipe, a name or a YAML file, with all keys", autocompletion=recipe_names),
]
SchemaOpt = Annotated[bool, typer.Option("--schema", help="print the JSON schema of recipes, for editors")]


def unlearn(  # typer: one parameter per option
    recipe: RecipeArg,
    overrides: SetOpt = None,
    dry_run: DryRunOpt = False,
    out: OutOpt = Path("unlearned"),
    checkpoint_every: CheckpointOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Train one unlearning run from a recipe, clean or backdoored.

    An empty recipe file is clean unlearning by NPO on the built-in benchmark. An interrupted run resumes from
    its last complete checkpoint when the command is started again. A model larger than one GPU is sharded
    over several by `accelerate launch -m sinkscope unlearn RECIPE`.

    Example: `sinkscope unlearn tiny/npo-backdoor --set trigger.placement=infix --out runs/infix`

    Example: `sinkscope unlearn recipe.yaml --set poison_ratio=0.1 --out runs/prefix`
    """
    load_plugins(plugin or [])
    from sinkscope.config import parse_overrides
    from sinkscope.unlearning.cost_estimate import estimate_cost
    from sinkscope.unlearning.recipe import Recipe
    from sinkscope.unlearning.run import unlearn as run
    from sinkscope.unlearning.sharding import processes

    resolved = Recipe.read(recipe, parse_overrides(overrides or []), "--set")
    if dry_run:
        cost = estimate_cost(resolved)
        if json:
            print_result({"recipe": resolved.model_dump(mode="json"), "plan": cost.to_dict()}, json)
        else:  # comments and YAML: the output is a recipe again
            print("".join(f"# {line}\n" for line in cost.lines()) + resolved.to_yaml(), end="")
        return
    with progress() as progress_bar:
        run(resolved, out, progress_bar("unlearn"), checkpoint_every=checkpoint_every)
    if processes().is_main_process:
        print_result({"out": str(out), "model": str(out / "model")}, json)


def recipes(
    show: ShowOpt = None, schema: SchemaOpt = False, plugin: PluginOpt = None, json: JsonOpt = False
) -> None:
    """List the recipes that come with the package, or print one recipe with all keys.

    A recipe that extends another one is printed with the values of both merged.

    Example: `sinkscope recipes`

    Example: `sinkscope recipes --show tiny/npo-backdoor`

    Example: `sinkscope recipes --schema`
    """
    if show is not None and schema:
        raise RecipeError("--show and --schema cannot be combined; give one of them")
    if show is None and not schema:
        from sinkscope.unlearning.recipe_files import recipe_summaries

        print_result(recipe_summaries(), json)
        return
    load_plugins(plugin or [])
    from sinkscope.unlearning.recipe import Recipe
    from sinkscope.unlearning.recipe_schema import recipe_schema

    if show is None:
        print_result(recipe_schema(), True)
        return
    recipe = Recipe.read(show)
    if json:
        print_result(recipe.model_dump(mode="json"), True)
    else:
        print(recipe.to_yaml(), end="")
