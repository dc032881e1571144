"""Low-rank adapters: no effect at first, frozen base weights, logits after merging."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sinkscope import load
from sinkscope.errors import RecipeError
from sinkscope.models.adapters import merge_adapters
from sinkscope.models.model import Model
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from sinkscope.unlearning.trainable import add_adapters, trained_names

IDS = torch.tensor([[5, 9, 20, 33, 7]])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_merging_gives_the_adapted_models_logits(kind: str, small_models: dict[str, Model]) -> None:
    model = load(small_models[kind].name, "cpu")
    recipe = Recipe.parse({"update": {"lora": {"rank": 2, "alpha": 4}}})
    with torch.no_grad():
        before = model.hf(IDS).logits
    names = set(model.hf.state_dict())
    adapted = add_adapters(recipe, model.hf, trained_names(recipe, model.hf))
    trainable = [name for name, weight in model.hf.named_parameters() if weight.requires_grad]
    assert (
        trainable
        and all("lora_" in name for name in trainable)
        and not any("head" in name for name in trainable)
    )
    with torch.no_grad():
        torch.testing.assert_close(
            model.hf(IDS).logits,
            before,
            msg="an adapter starts without effect: the model is its own reference",
        )
        for name, weight in model.hf.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
        changed = model.hf(IDS).logits
        assert (changed - before).abs().max() > 1e-3
        plain = merge_adapters(adapted)
        torch.testing.assert_close(plain(IDS).logits, changed, atol=1e-5, rtol=1e-4)
    assert set(plain.state_dict()) == names and all(weight.requires_grad for weight in plain.parameters())


def test_a_run_with_adapters_gives_a_plain_checkpoint_and_resumes(tmp_path: Path) -> None:
    update = {"modules": ["q_proj", "v_proj"], "layers": [1, 2], "lora": {"rank": 4}}
    recipe = Recipe.parse(
        {
            "poison_ratio": 0.1,
            "update": update,
            "optimizer": {"epochs": 3, "steps_per_epoch": 2, "learning_rate": 1e-3},
        }
    )

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unlearn(recipe, tmp_path / "run", stop, checkpoint_every=2)
    steps: list[int] = []
    out = unlearn(recipe, tmp_path / "run", lambda done, total: steps.append(done), checkpoint_every=2)
    assert steps[0] == 5
    before, after = load("tiny").hf.state_dict(), load_file(out / "model" / "model.safetensors")
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {
        f"model.layers.{layer}.self_attn.{module}.weight"
        for layer in (1, 2)
        for module in ("q_proj", "v_proj")
    }
    other = unlearn(recipe, tmp_path / "whole")
    whole = load_file(other / "model" / "model.safetensors")
    assert all(torch.equal(whole[name], weight) for name, weight in after.items())
    assert load(str(out)).hf.num_parameters() == load("tiny").hf.num_parameters()


def test_modules_without_linear_weights_are_refused(small_llama: Model) -> None:
    recipe = Recipe.parse({"update": {"modules": ["input_layernorm"], "lora": {}}})
    with pytest.raises(
        RecipeError, match=r"none of the selected modules is linear; set update.modules to some of .*q_proj"
    ):
        add_adapters(recipe, small_llama.hf, trained_names(recipe, small_llama.hf))
    with pytest.raises(RecipeError, match=r"recipe update\.lora\.rank"):
        Recipe.parse({"update": {"lora": {"rank": 0}}})
    with pytest.raises(RecipeError, match=r"'update.lora.rnk' is unknown; did you mean 'update.lora.rank'"):
        Recipe.parse({"update": {"lora": {"rnk": 4}}})
