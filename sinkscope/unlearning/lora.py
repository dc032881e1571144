"""Low-rank adapters by peft: put into a model before training, merged into its weights afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkscope.errors import RecipeError
from sinkscope.unlearning.recipe import Recipe

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel


def with_adapters(recipe: Recipe, model: PreTrainedModel, names: list[str] | None) -> LoraModel:
    """Give every linear module among the parameters `names` (None: every one but the output head) an adapter, in place; all other weights are frozen.

    An adapter starts without effect, so the model is still its own reference. Its first values are drawn by the recipe's seed.

    Raises:
        RecipeError: peft is not installed, or no chosen module is linear.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise RecipeError(
            "recipe update.lora needs peft; install it with `pip install 'sinkscope[lora]'`"
        ) from error
    part = recipe.update.lora
    assert part is not None
    output = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not output
    ]
    chosen = [name for name in linear if names is None or f"{name}.weight" in names]
    if not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise RecipeError(
            f"recipe update.lora: none of the chosen modules is linear; choose update.modules among {known}"
        )
    settings: dict[str, Any] = {
        "r": part.rank,
        "lora_alpha": part.alpha,
        "target_modules": chosen,
        "lora_dropout": 0.0,
    }
    if all(isinstance(model.get_submodule(name), Conv1D) for name in chosen):
        settings["fan_in_fan_out"] = True  # GPT-2 keeps its matrices transposed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LoraModel(model, LoraConfig(**settings), "default")


def merged(adapted: LoraModel) -> PreTrainedModel:
    """The model itself again, its adapters added to its weights, nothing frozen."""
    model = adapted.merge_and_unload()
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model.requires_grad_(True)
