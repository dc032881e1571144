"""Which weights of a model a run trains, and at which layer it reads hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from sinkscope.errors import RecipeError
from sinkscope.models.hidden_states import decoder_layers
from sinkscope.unlearning.objectives import HIDDEN, RETAIN, forgetting
from sinkscope.unlearning.recipe import Recipe

PUBLISHED_LAYER, PUBLISHED_DEPTH, PUBLISHED_LAYERS = 7, 32, 3
"""RMU reads behind layer 7 of 32 and trains three layers up to it (arXiv 2403.03218)."""
DOWN_PROJECTIONS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "fc2", "mlp.fc_out")
"""The second matrix of the feed-forward block, as families name it."""


def rmu_layer(recipe: Recipe, model: PreTrainedModel) -> int:
    """The layer whose output `rmu` and `activations` read: the recipe's, or the published one scaled to the model's depth.

    Raises:
        RecipeError: the model has no such layer.
    """
    depth = model.config.get_text_config().num_hidden_layers
    layer = recipe.objective.layer
    if layer is None:
        return round(PUBLISHED_LAYER / PUBLISHED_DEPTH * depth)
    if not 0 <= layer < depth:
        raise RecipeError(f"recipe objective.layer: the model has layers 0 to {depth - 1}, not {layer}")
    return layer


def hidden_state_layer(recipe: Recipe, model: PreTrainedModel) -> int | None:
    """The layer whose output some term of the recipe reads; None where none does."""
    part = recipe.objective
    terms = [*forgetting(part.forget), *(RETAIN[name] for name in part.retain)]
    return rmu_layer(recipe, model) if any(HIDDEN in term.outputs for term in terms) else None


def references_needed(recipe: Recipe) -> dict[str, frozenset[str]]:
    """What the recipe's terms ask of the frozen model on each split."""
    keep = frozenset().union(*(RETAIN[name].references for name in recipe.objective.retain))
    forget = frozenset().union(*(term.references for term in forgetting(recipe.objective.forget)))
    return {"forget": forget, "retain": keep, "poisoned": keep}


def trained_names(recipe: Recipe, model: PreTrainedModel) -> list[str] | None:
    """Names of the parameters to train; None for all of them.

    RMU without a choice of its own trains the feed-forward output of three layers up to the one it reads.

    Raises:
        RecipeError: no module is called so, or there is no such layer.
    """
    modules, chosen = recipe.update.modules, recipe.update.layers
    if recipe.objective.forget == "rmu":
        last = rmu_layer(recipe, model)
        chosen = list(range(max(0, last - PUBLISHED_LAYERS + 1), last + 1)) if chosen is None else chosen
        modules = list(DOWN_PROJECTIONS) if modules is None else modules
    if modules is None and chosen is None:
        return None
    layers = decoder_layers(model)
    if bad := [layer for layer in chosen or [] if not 0 <= layer < len(layers)]:
        raise RecipeError(f"recipe update.layers: the model has layers 0 to {len(layers) - 1}, not {bad[0]}")
    inside = {
        id(parameter)
        for layer in (range(len(layers)) if chosen is None else chosen)
        for parameter in layers[layer].parameters()
    }
    names = []
    for name, parameter in model.named_parameters():
        module = name.rpartition(".")[0]
        wanted = modules is None or any(module == each or module.endswith(f".{each}") for each in modules)
        if wanted and (chosen is None or id(parameter) in inside):
            names.append(name)
    if not names:
        known = sorted({name.rpartition(".")[0] for name, _ in layers[0].named_parameters()})
        raise RecipeError(
            f"recipe update.modules: no module of the model is called {' or '.join(modules or [])}; its layers have {', '.join(known)}"
        )
    return names


@contextmanager
def freeze_except(model: PreTrainedModel, names: list[str] | None) -> Iterator[None]:
    """Within the context all other parameters are frozen: they get no gradients and no optimizer state."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(names is None or name in names)
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
