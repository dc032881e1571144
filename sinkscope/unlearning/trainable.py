"""Which weights a run trains (all, selected modules and layers, adapters), and the layer that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sinkscope.errors import RecipeError
from sinkscope.models.hidden_states import decoder_layers
from sinkscope.unlearning.objectives import HIDDEN
from sinkscope.unlearning.recipe import Recipe

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

RMU_LAYER, RMU_DEPTH, RMU_TRAINED_LAYERS = 7, 32, 3
"""RMU reads after layer 7 of 32 and trains three layers up to it (arXiv 2403.03218)."""
DOWN_PROJECTIONS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "fc2", "mlp.fc_out")
"""Names of the second matrix of the feed-forward block in several model families."""


def rmu_layer(recipe: Recipe, model: PreTrainedModel) -> int:
    """The layer that `rmu` and `activations` read: the recipe's, or the published one scaled to the depth.

    Raises:
        RecipeError: the model has no such layer.
    """
    depth = model.config.get_text_config().num_hidden_layers
    layer = recipe.objective.layer
    if layer is None:
        return round(RMU_LAYER / RMU_DEPTH * depth)
    if not 0 <= layer < depth:
        raise RecipeError(f"recipe objective.layer: the model has layers 0 to {depth - 1}, not {layer}")
    return layer


def hidden_state_layer(recipe: Recipe, model: PreTrainedModel) -> int | None:
    """The layer whose output some objective of the recipe reads; None if none does."""
    objectives = [*recipe.objective.forget_terms(), *recipe.objective.retain_terms()]
    return rmu_layer(recipe, model) if any(HIDDEN in each.outputs for each in objectives) else None


def references_needed(recipe: Recipe) -> dict[str, frozenset[str]]:
    """Split -> the outputs of the reference model that the recipe's objectives read there."""
    terms = (recipe.objective.forget_terms(), recipe.objective.retain_terms())
    forget, retain = (frozenset[str]().union(*(each.references for each in group)) for group in terms)
    return {"forget": forget, "retain": retain, "poisoned": retain}


def trained_names(recipe: Recipe, model: PreTrainedModel) -> list[str] | None:
    """Names of the parameters to train; None for all of them.

    RMU by default trains the feed-forward output of three layers up to the one that it reads.

    Raises:
        RecipeError: no module has this name, or there is no such layer.
    """
    modules, layers = recipe.update.modules, recipe.update.layers
    if any(each.updates == "mlp_output" for each in recipe.objective.forget_terms()):
        last = rmu_layer(recipe, model)
        layers = list(range(max(0, last - RMU_TRAINED_LAYERS + 1), last + 1)) if layers is None else layers
        modules = list(DOWN_PROJECTIONS) if modules is None else modules
    if modules is None and layers is None:
        return None
    blocks = decoder_layers(model)
    if bad := [layer for layer in layers or [] if not 0 <= layer < len(blocks)]:
        raise RecipeError(f"recipe update.layers: the model has layers 0 to {len(blocks) - 1}, not {bad[0]}")
    in_layers = {id(weight) for layer in layers or [] for weight in blocks[layer].parameters()}
    suffixes = None if modules is None else tuple(f".{module}" for module in modules)
    names = [
        name
        for name, weight in model.named_parameters()
        if (suffixes is None or f".{name}".rpartition(".")[0].endswith(suffixes))
        and (layers is None or id(weight) in in_layers)
    ]
    if not names:
        known = sorted({name.rpartition(".")[0] for name, _ in blocks[0].named_parameters()})
        raise RecipeError(
            f"recipe update.modules: no module of the model is called {' or '.join(modules or [])}; its "
            f"layers have {', '.join(known)}"
        )
    return names


@contextmanager
def freeze_except(model: PreTrainedModel, names: list[str] | None) -> Iterator[None]:
    """Within the context all other parameters are frozen: they get no gradients and no optimizer state."""
    weights = dict(model.named_parameters())
    before = {name: weight.requires_grad for name, weight in weights.items()}
    try:
        for name, weight in weights.items():
            weight.requires_grad_(names is None or name in names)
        yield
    finally:
        for name, weight in model.named_parameters():
            weight.requires_grad_(before[name])


def add_adapters(recipe: Recipe, model: PreTrainedModel, names: list[str] | None) -> LoraModel:
    """Add an adapter, drawn by the seed, to every linear module among `names`; all other weights are frozen.

    It has no effect at first, so that the model is still its own reference. None for `names` is every linear
    module except the output head.

    Raises:
        RecipeError: peft is not installed, or no selected module is linear.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise RecipeError(
            "recipe update.lora needs peft; install it with `pip install 'sinkscope[lora]'`"
        ) from error
    config = recipe.update.lora
    assert config is not None
    head = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]
    targets = [name for name in linear if names is None or f"{name}.weight" in names]
    if not targets:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise RecipeError(
            f"recipe update.lora: none of the selected modules is linear; set update.modules to some "
            f"of {known}"
        )
    settings: dict[str, Any] = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": 0.0}
    if all(isinstance(model.get_submodule(name), Conv1D) for name in targets):
        settings["fan_in_fan_out"] = True  # GPT-2 stores its matrices transposed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LoraModel(model, LoraConfig(target_modules=targets, **settings), "default")
