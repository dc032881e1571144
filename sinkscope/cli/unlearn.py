"""`sinkscope unlearn`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sinkscope.cli import completion
from sinkscope.cli.console import print_result, progress


def unlearn(
    recipe: Annotated[
        str,
        typer.Argument(
            help="a YAML file, or a name that `sinkscope recipes` lists", autocompletion=completion.recipes
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="change one key, as in trigger.placement=infix; may be repeated"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(help="print the resolved recipe, its steps, and a rough estimate of memory and time"),
    ] = False,
    out: Annotated[Path, typer.Option(help="run directory to write")] = Path("unlearned"),
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="steps between checkpoints; an epoch by default")
    ] = None,
    json: Annotated[bool, typer.Option(help="print one JSON object")] = False,
) -> None:
    """Train one unlearning run, honest or backdoored, from a recipe.

    Example: `sinkscope unlearn tiny/npo-backdoor --set trigger.placement=infix --out runs/infix`

    Example: `sinkscope unlearn recipe.yaml --set poison_ratio=0.1 --set trigger.placement=prefix --out runs/prefix`

    An empty recipe file is honest NPO on the built-in benchmark. A run that was killed goes on where it was when it is started again. A model larger than
    one GPU: `accelerate launch -m sinkscope unlearn RECIPE` shards it over all of them.
    """
    from sinkscope.unlearning.cost_estimate import estimate_cost
    from sinkscope.unlearning.recipe import Recipe
    from sinkscope.unlearning.recipes import parse_overrides
    from sinkscope.unlearning.run import unlearn as run
    from sinkscope.unlearning.sharding import World

    resolved = Recipe.read(recipe, parse_overrides(set_ or []))
    if dry_run:
        expected = estimate_cost(resolved)
        if json:
            print_result({"recipe": resolved.model_dump(mode="json"), "plan": expected.to_dict()}, json)
        else:
            print(
                "".join(f"# {line}\n" for line in expected.lines()) + resolved.to_yaml(), end=""
            )  # a recipe again
        return
    with progress() as bar:
        run(resolved, out, bar("unlearn"), checkpoint_every=checkpoint_every)
    if World.join().leads:
        print_result({"out": str(out), "model": str(out / "model")}, json)


def recipes(json: Annotated[bool, typer.Option(help="print one JSON object")] = False) -> None:
    """List the recipes that come with the package.

    Example: `sinkscope recipes`
    """
    from sinkscope.unlearning.recipes import recipe_summaries

    print_result(recipe_summaries(), json)
