"""Recipes that extend others: what is merged and what is replaced, chains, deprecated keys, errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from sinkscope.config import merge_values, replace_deprecated
from sinkscope.errors import RecipeError
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.recipe_files import named_recipes
from tests.studies.small import runs


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with a recipe, `base.yaml`, which differs from the defaults in every kind of value."""
    values = {
        "objective": {"forget": "npo", "beta": 0.3, "layer": 1, "retain": {"nll": 2.0, "kl": 1.0}},
        "update": {"modules": ["mlp.down_proj"], "lora": {"rank": 2, "alpha": 4.0}},
        "optimizer": {"epochs": 3, "batch_size": 4},
        "seed": 5,
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def extend(directory: Path, values: dict[str, Any], base: Any = "base.yaml", name: str = "own.yaml") -> Path:
    path = directory / name
    path.write_text(yaml.safe_dump({"extends": base} | values))
    return path


def test_values_of_a_file_come_before_those_of_the_recipe_it_extends(files: Path) -> None:
    base = Recipe.read(files / "base.yaml")
    assert Recipe.read(extend(files, {})) == base
    recipe = Recipe.read(extend(files, {"optimizer": {"epochs": 7}, "poison_ratio": 0.2}))
    assert (recipe.optimizer.epochs, recipe.optimizer.batch_size) == (7, 4), "groups of keys are merged"
    assert (recipe.poison_ratio, recipe.seed) == (0.2, 5)
    deep = Recipe.read(extend(files, {"update": {"lora": {"rank": 3}}})).update
    assert deep.lora is not None and (deep.lora.rank, deep.lora.alpha) == (3, 4.0)


@pytest.mark.parametrize(
    ("values", "dotted", "expected"),
    [
        ({"update": {"modules": ["q_proj", "v_proj"]}}, "update.modules", ["q_proj", "v_proj"]),
        ({"update": {"modules": None}}, "update.modules", None),
        ({"update": {"lora": None}}, "update.lora", None),
        ({"objective": {"retain": {"kl": 3.0}}}, "objective.retain", {"kl": 3.0}),
    ],
)
def test_lists_retain_objectives_and_null_replace(
    files: Path, values: dict[str, Any], dotted: str, expected: Any
) -> None:
    found: Any = Recipe.read(extend(files, values)).model_dump()
    for key in dotted.split("."):
        found = found[key]
    assert found == expected


def test_parameters_of_another_forget_objective_do_not_remain(files: Path) -> None:
    objective = Recipe.read(extend(files, {"objective": {"forget": "simnpo"}})).objective
    assert (objective.forget, objective.beta) == ("simnpo", 2.5), "the default, not npo's 0.3"
    assert (objective.layer, objective.retain) == (1, {"nll": 2.0, "kl": 1.0}), "not npo's alone"
    rmu = Recipe.read(extend(files, {"objective": {"forget": "rmu", "steering_coeff": 20}})).objective
    assert (rmu.forget, rmu.steering_coeff) == ("rmu", 20)
    none = Recipe.read(extend(files, {"objective": {"forget": "none"}})).objective
    assert none.forget == "none"
    same = Recipe.read(extend(files, {"objective": {"forget": "npo", "retain": {"nll": 1}}})).objective
    assert same.beta == 0.3, "the forget objective is the same"


def test_the_default_objective_of_a_base_is_known(files: Path) -> None:
    (files / "base.yaml").write_text("objective: {beta: 0.3}")
    assert Recipe.read(extend(files, {"objective": {"layer": 2}})).objective.beta == 0.3
    assert Recipe.read(extend(files, {"objective": {"forget": "simnpo"}})).objective.beta == 2.5


def test_a_misspelt_parameter_of_a_base_is_refused_with_any_objective(files: Path) -> None:
    (files / "base.yaml").write_text("objective: {forget: npo, bta: 0.3}")
    with pytest.raises(RecipeError, match=r"objective\.bta' is unknown.*\(in .*base\.yaml\)$"):
        Recipe.read(extend(files, {"objective": {"forget": "simnpo"}}))


def test_a_base_is_a_built_in_name_or_a_path_from_the_file_that_names_it(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Recipe.read(extend(files, {"seed": 3}, "tiny/rmu")) == Recipe.read("tiny/rmu", {"seed": 3})
    (files / "elsewhere").mkdir()
    below = extend(files / "elsewhere", {}, "../base.yaml")
    assert Recipe.read(below).seed == 5
    assert Recipe.read(extend(files / "elsewhere", {}, str(files / "base.yaml"))).seed == 5
    monkeypatch.chdir(files)
    assert Recipe.read("elsewhere/own.yaml").seed == 5
    (files / "tiny").mkdir()
    (files / "tiny" / "rmu").write_text("seed: 9")
    assert Recipe.read(extend(files, {}, "tiny/rmu")).seed == 9, "a file comes before a name"


def test_a_chain_is_merged_from_its_first_recipe_on(files: Path) -> None:
    extend(files, {"optimizer": {"epochs": 7}, "seed": 6}, name="middle.yaml")
    recipe = Recipe.read(extend(files, {"seed": 8}, "middle.yaml"), {"optimizer.batch_size": 2})
    assert (recipe.optimizer.epochs, recipe.optimizer.batch_size, recipe.seed) == (7, 2, 8)
    assert recipe.objective.beta == 0.3
    for number in range(1100):  # more than Python's limit of recursion
        extend(files, {}, f"{number - 1}.yaml" if number else "base.yaml", f"{number}.yaml")
    assert Recipe.read(files / "1099.yaml").seed == 5


OLD = {
    "optimiser": {"batches": 3},
    "objective": {"forget": "rmu", "steering": 20},
    "poison_split": "published",
    "value_norms": {"first": 4},
}
NEW = {
    "optimizer": {"steps_per_epoch": 2},
    "objective": {"forget": "rmu", "steering_coeff": 10.0},
    "poisoned_originals": "keep",
    "value_norms": {"n_tokens": 3},
}


@pytest.mark.parametrize(("base", "own"), [(OLD, NEW), (NEW, OLD), (OLD, OLD)])
def test_deprecated_keys_of_both_files_are_replaced_before_they_are_merged(
    files: Path, base: dict[str, Any], own: dict[str, Any]
) -> None:
    (files / "base.yaml").write_text(yaml.safe_dump(base | {"seed": 4}))
    assert Recipe.read(extend(files, own)) == Recipe.parse(own | {"seed": 4})


def test_a_deprecated_parameter_suits_the_objective_of_the_base(files: Path) -> None:
    own = extend(files, {"objective": {"steering": 7}}, "tiny/rmu")
    assert Recipe.read(own) == Recipe.read("tiny/rmu", {"objective.steering_coeff": 7})
    with pytest.raises(RecipeError, match="'steering' is the old name of 'steering_coeff'"):
        Recipe.read(extend(files, {"objective": {"steering": 7, "steering_coeff": 8}}, "tiny/rmu"))


@pytest.mark.parametrize("forget", ["simnpo", "rmu", "grad_ascent", "none"])
def test_a_recipe_of_an_old_run_directory_is_extended(files: Path, forget: str) -> None:
    """It has the parameters of all objectives."""
    old = {"forget": "npo", "beta": 0.3, "delta": 0.0, "layer": None, "steering": 6.5, "retain": {"kl": 1.0}}
    (files / "base.yaml").write_text(yaml.safe_dump({"objective": old}))
    own = {"objective": {"forget": forget} | ({"steering_coeff": 20} if forget == "rmu" else {})}
    assert Recipe.read(extend(files, own)) == Recipe.parse(own)


def refusal(path: Path | str, changes: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path, changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("base", [None, 3, "", " ", ["base.yaml"], {"name": "base.yaml"}, True])
def test_extends_must_be_text(files: Path, base: Any) -> None:
    path = extend(files, {}, base)
    message = refusal(path)
    assert message.startswith("recipe key 'extends': must be a path or a built-in name (got ")
    assert message.endswith(f" (in {path})")


def test_a_base_that_is_missing_is_named_with_the_file_that_extends_it(files: Path) -> None:
    path = extend(files, {}, "tiny/nop")
    assert refusal(path) == (
        f"recipe 'tiny/nop' is neither a file nor a known name; did you mean 'tiny/npo'? (in {path})"
    )
    extend(files, {}, "missing.yaml", "middle.yaml")
    message = refusal(extend(files, {}, "middle.yaml"))
    assert message == (
        f"recipe {files / 'missing.yaml'} cannot be read: No such file or directory; correct `extends` "
        f"(in {files / 'middle.yaml'})"
    )
    assert "it is a directory" in refusal(extend(files, {}, "."))
    assert "cannot be read" in refusal(extend(files, {}, "a\0b.yaml"))
    assert "File name too long; correct `extends` (in " in refusal(extend(files, {}, "x" * 5000))


@pytest.mark.parametrize("content", ["[1, 2]", "text", "a: [", "a: 1\na: 2"])
def test_a_base_that_is_no_mapping_is_named(files: Path, content: str) -> None:
    (files / "base.yaml").write_text(content)
    assert refusal(extend(files, {})).startswith(f"recipe {files / 'base.yaml'} ")


def test_a_cycle_is_refused_with_its_files(files: Path) -> None:
    itself = extend(files, {}, "own.yaml")
    assert refusal(itself) == f"recipe {itself} extends itself ({itself} → {itself}); remove one `extends`"
    for name, base in {"a": "b", "b": "c", "c": "a"}.items():
        extend(files, {}, f"{base}.yaml", f"{name}.yaml")
    a, b, c = (files / f"{name}.yaml" for name in "abc")
    assert f"({a} → {b} → {c} → {a})" in refusal(a)
    other = files / "other.yaml"
    os.symlink(itself, other)
    extend(files, {}, "other.yaml")
    assert "extends itself" in refusal(itself), "by another name of the file"
    assert "extends itself" in refusal(extend(files, {}, f"../{files.name}/own.yaml"))


def test_an_error_names_the_file_that_it_is_in(files: Path) -> None:
    extend(files, {"optimizer": {"epoch": 3}}, name="middle.yaml")
    own = extend(files, {"seed": 1}, "middle.yaml")
    assert refusal(own).endswith(f"did you mean 'optimizer.epochs'? (in {files / 'middle.yaml'})")
    assert refusal(extend(files, {"seed": -1})).endswith(f" (in {own})")
    assert refusal(extend(files, {}), {"seed": -1}).endswith(" (in changes)")


def test_a_base_need_not_be_complete(files: Path) -> None:
    (files / "base.yaml").write_text("value_norms: {weight: 0.1}")
    assert "needs `unlearned`" in refusal(files / "base.yaml")
    own = extend(files, {"value_norms": {"unlearned": "auto"}})
    assert Recipe.read(own).value_norms.weight == 0.1


def test_extends_is_no_key_of_a_recipe(files: Path) -> None:
    recipe = Recipe.read(extend(files, {}))
    assert "extends" not in recipe.model_dump() and "extends" not in recipe.non_default()
    (files / "resolved.yaml").write_text(recipe.to_yaml())
    assert Recipe.read(files / "resolved.yaml") == recipe
    with pytest.raises(RecipeError, match="'extends' is unknown"):
        Recipe.parse({"extends": "tiny/npo"})


def test_the_identity_of_a_run_does_not_depend_on_how_its_recipe_is_written(files: Path) -> None:
    own = extend(files, {"optimizer": {"epochs": 3}}, "tiny/npo-backdoor")
    grids = {"own": {"recipe": str(own)}, "same": {"set": {"optimizer.epochs": 3}}}
    extended, same = runs(base="tiny/npo-backdoor", seeds=[0], grids=grids)
    assert extended.model.key == same.model.key


def written(name: str) -> dict[str, Any]:
    """What is in the file of a built-in recipe and in those that it extends."""
    values = yaml.safe_load(named_recipes()[name].read_text(encoding="utf-8"))
    base = written(values.pop("extends")) if "extends" in values else {}
    return merge_values(Recipe, base, values)


def repeated(values: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """Keys that have the same value in both, also in groups."""
    keys = [key for key, value in values.items() if base.get(key) == value]
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            keys += repeated(value, base[key])
    return keys


def test_built_in_recipes_say_only_what_differs_from_the_one_they_extend() -> None:
    n_extending = 0
    for name, path in named_recipes().items():
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert replace_deprecated(Recipe, values) == values
        if "extends" in values:
            n_extending += 1
            assert repeated(values, written(values["extends"])) == [], name
    assert n_extending > 20
