"""Which weights a run trains; all others are frozen."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from sinkscope import load
from sinkscope.errors import RecipeError
from sinkscope.models.model import Model
from sinkscope.unlearning.objectives.rmu import control_vector
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from sinkscope.unlearning.trainable import freeze_except, rmu_layer, trained_names

RMU = {"objective": {"forget": "rmu", "retain": {"activations": 10.0}}}


@pytest.mark.parametrize(
    ("kind", "module"),
    [("llama", "down_proj"), ("gpt2", "c_proj"), ("neox", "dense_4h_to_h"), ("qwen2", "down_proj")],
)
def test_rmu_trains_the_feed_forward_output_of_the_layers_up_to_the_one_it_reads(
    kind: str, module: str, small_models: dict[str, Model]
) -> None:
    network = small_models[kind].hf
    recipe = Recipe.parse(RMU)
    assert rmu_layer(recipe, network) == 1  # 7 of 32, in a model of 3
    names = trained_names(recipe, network)
    assert {name.split(".mlp.")[1].split(".")[0] for name in names} == {module}
    assert {int(part) for name in names for part in name.split(".") if part.isdigit()} == {0, 1}
    chosen = trained_names(Recipe.parse(RMU | {"update": {"layers": [2]}}), network)
    assert {int(part) for name in chosen for part in name.split(".") if part.isdigit()} == {2}


def test_all_weights_are_trained_by_default(small_llama: Model) -> None:
    assert trained_names(Recipe(), small_llama.hf) is None
    values = trained_names(Recipe.parse({"update": {"modules": ["v_proj"]}}), small_llama.hf)
    assert len(values) == 3 and all("v_proj" in name for name in values)


def test_unknown_layers_and_modules_are_refused(small_llama: Model) -> None:
    for values, message in (
        (
            {"objective": {"forget": "rmu", "layer": 9, "retain": {"activations": 1}}},
            "objective.layer: the model has layers 0 to 2, not 9",
        ),
        ({"update": {"layers": [0, 5]}}, "update.layers: the model has layers 0 to 2, not 5"),
        (
            {"update": {"modules": ["router"]}},
            "no module of the model is called router; its layers have .*mlp.down_proj",
        ),
    ):
        recipe = Recipe.parse(values)
        with pytest.raises(RecipeError, match=message):
            rmu_layer(recipe, small_llama.hf)
            trained_names(recipe, small_llama.hf)


def test_freezing_is_undone(small_llama: Model) -> None:
    network = small_llama.hf
    with freeze_except(network, ["model.layers.0.mlp.down_proj.weight"]):
        assert sum(p.requires_grad for p in network.parameters()) == 1
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    "objective",
    [
        RMU["objective"],
        {"forget": "rmu", "retain": {"activations": 1.0, "kl": 0.1}},
        {"forget": "simnpo", "retain": {"nll": 1.0}},
        {"forget": "grad_ascent", "retain": {"nll": 1.0, "kl": 1.0}},
    ],
    ids=["rmu", "rmu-kl", "simnpo", "grad_ascent"],
)
def test_a_run_changes_the_selected_weights_only(objective: dict, tmp_path) -> None:
    recipe = Recipe.parse(
        {
            "objective": objective,
            "poison_ratio": 0.1,
            "optimizer": {"epochs": 1, "steps_per_epoch": 2},
            "update": {"modules": ["mlp.down_proj"]},
        }
    )
    out = unlearn(recipe, tmp_path / "run")
    before, after = load("tiny").hf.state_dict(), load_file(out / "model" / "model.safetensors")
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    layers = (0, 1) if objective["forget"] == "rmu" else range(4)
    assert changed == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in layers}
    control = out / "control.safetensors"
    assert control.exists() == (objective["forget"] == "rmu")
    if control.exists():
        torch.testing.assert_close(load_file(control)["control"], control_vector(128, 6.5, 0))


def test_nan_stops_the_run_and_names_the_term(tmp_path) -> None:
    recipe = Recipe.parse(
        {
            "objective": {"forget": "grad_ascent"},
            "optimizer": {"learning_rate": 1e30, "epochs": 1, "steps_per_epoch": 3},
        }
    )
    with pytest.raises(
        RecipeError,
        match=r"term (forget/grad_ascent|retain/kl) became (nan|-?inf) at step \d+.*"
        r"lower optimizer.learning_rate",
    ):
        unlearn(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_whose_last_step_diverges_is_not_saved(tmp_path) -> None:
    optimizer = {"learning_rate": 1e30, "epochs": 1, "steps_per_epoch": 1}
    recipe = Recipe.parse({"objective": {"forget": "npo"}, "optimizer": optimizer})
    with pytest.raises(RecipeError, match=r"the norm of the weights became (nan|inf) at step 1.*; lower opt"):
        unlearn(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
