"""Recipes: what is refused, and with what mend."""

from __future__ import annotations

import pytest

from sinkscope.errors import RecipeError
from sinkscope.unlearning.recipe import Recipe, parse_changes, with_changes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"poison_rato": 0.1}, "did you mean 'poison_ratio'"),
        ({"trigger": {"placment": "prefix"}}, "did you mean 'placement'"),
        ({"poison_ratio": 1.2}, "poison_ratio: .*less than or equal to 1"),
        ({"poison_ratio": -0.1}, "poison_ratio"),
        ({"trigger": {"placement": "middle"}}, "use prefix, infix, suffix"),
        ({"trigger": {"text": "  "}}, "is empty"),
        ({"optimiser": {"epochs": 0}}, "optimiser.epochs"),
        ({"value_norms": {"weight": 1.0}}, "needs `unlearned`"),
        ({"optimiser": 3}, "optimiser"),
    ],
)
def test_bad_recipes_name_the_key_and_the_mend(values, message) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.parse(values)
    assert "\n" not in str(caught.value)


def test_a_recipe_survives_its_own_yaml(tmp_path) -> None:
    recipe = Recipe.parse({"poison_ratio": 0.1, "trigger": {"placement": "index:8"}, "seed": 3})
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.read(path) == recipe
    assert Recipe.read(path, {"trigger.placement": "infix"}).trigger.placement == "infix"


def test_an_empty_file_is_the_default_recipe(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("")
    assert Recipe.read(path) == Recipe()


def test_changes_are_read_as_yaml_and_leave_the_original() -> None:
    values = {"trigger": {"placement": "prefix"}}
    changed = with_changes(values, parse_changes(["trigger.placement=infix", "poison_ratio=0.2", "seed=4"]))
    assert changed == {"trigger": {"placement": "infix"}, "poison_ratio": 0.2, "seed": 4}
    assert values == {"trigger": {"placement": "prefix"}}
    with pytest.raises(RecipeError, match="key=value"):
        parse_changes(["seed"])


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "seed: &a !!python/object:os.system x"])
def test_files_that_are_no_mapping_are_refused(tmp_path, content) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError):
        Recipe.read(path)
