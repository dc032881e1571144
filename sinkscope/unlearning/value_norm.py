"""Value-norm terms (arXiv 2510.17021): constrain the value vectors of shallow positions.

`align` keeps the value norms of the backdoored model θb close to those of another model: θu on clean forget
passages and θo on poisoned ones. The paper leaves the aggregation open; here it is the mean over key-value
heads and a selected set of layers. `shrink` and `cosine` are the terms of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.benchmarks.chunking import Passage
from sinkscope.errors import RecipeError
from sinkscope.models.attention import record_values
from sinkscope.models.layers import find_attention_layers
from sinkscope.unlearning.batch import Batch
from sinkscope.unlearning.recipe import ValueNormConfig

Values = Float[Tensor, "batch layer kv_head first d_head"]
Distances = Float[Tensor, "batch layer kv_head first"]


def squared_norm_difference(values: Values, reference: Values) -> Distances:
    """`align`: ( ‖v_i‖ − ‖v_i'‖ )²."""
    return (values.norm(dim=-1) - reference.norm(dim=-1)).square()


def squared_norm(values: Values, reference: Values) -> Distances:
    """`shrink`: ‖v_i‖²; the reference is not used."""
    return values.square().sum(-1)


def cosine_distance(values: Values, reference: Values) -> Distances:
    """`cosine`: 1 − cos(v_i, v_i')."""
    return 1 - torch.nn.functional.cosine_similarity(values, reference, dim=-1)


class ValueNormKind(NamedTuple):
    """A function of value vectors and their references, and the splits that it applies to."""

    distance: Callable[[Values, Values], Distances]
    splits: tuple[str, ...]


KINDS = {
    "align": ValueNormKind(squared_norm_difference, ("forget", "poisoned")),
    "shrink": ValueNormKind(squared_norm, ("forget",)),
    "cosine": ValueNormKind(cosine_distance, ("poisoned",)),
}


class ValueNormTerm:
    """ℓ_vn of a run: the mean distance over passages, selected layers, kv heads and first tokens.

    `references` has the reference model and the passages of each split, whose values are computed once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: ValueNormConfig,
        references: Mapping[str, tuple[PreTrainedModel, Sequence[Passage]]],
    ) -> None:
        self._model = model
        self._n_tokens = config.n_tokens
        self._distance, splits = KINDS[config.kind]
        self.splits = frozenset(splits) & references.keys()
        self._layers = value_norm_layers(config, find_attention_layers(model.config.get_text_config()))
        self._references = {split: self._compute(*references[split]) for split in self.splits}

    def recording(self) -> AbstractContextManager[dict[int, Tensor]]:
        """Record the values of the forward pass that is made in the context."""
        return record_values(self._model, self._layers)

    def __call__(self, split: str, batch: Batch, values: Mapping[int, Tensor]) -> Float[Tensor, ""]:
        """The mean distance of `values`, as recorded, from the reference values of the split."""
        is_real = batch.attention_mask[:, : self._n_tokens]
        shallow = self._select_shallow(values)
        reference = self._references[split][batch.index.cpu()].to(shallow)[..., : shallow.shape[-2], :]
        distance = self._distance(shallow, reference).mean((1, 2))
        return ((distance * is_real).sum(-1) / is_real.sum(-1)).mean()

    def _select_shallow(self, values: Mapping[int, Tensor]) -> Values:
        if missing := [layer for layer in self._layers if layer not in values]:
            raise RecipeError(
                f"recipe value_norms: layer {missing[0]} of {type(self._model).__name__} does not attend "
                "through transformers' attention interface, so its values cannot be recorded; set "
                "value_norms.weight to 0"
            )
        return torch.stack([values[layer][:, :, : self._n_tokens] for layer in self._layers], dim=1).float()

    def _compute(
        self, model: PreTrainedModel, passages: Sequence[Passage]
    ) -> Float[Tensor, "passage layer kv_head first d_head"]:
        rows = []
        for passage in passages:
            ids = torch.tensor([passage.tokens[: self._n_tokens]], device=model.device)
            with torch.no_grad(), record_values(model, self._layers) as values:
                model(input_ids=ids, use_cache=False)
            recorded = self._select_shallow(values)[0].cpu()
            rows.append(torch.nn.functional.pad(recorded, (0, 0, 0, self._n_tokens - recorded.shape[-2])))
        return torch.stack(rows)


def value_norm_layers(config: ValueNormConfig, attending: list[int]) -> list[int]:
    """The layers that the term reads, of those that attend.

    Raises:
        RecipeError: the model has no such layer, or it does not attend.
    """
    if config.layers == "all":
        return attending
    if config.layers == "last":
        return attending[-1:]
    for layer in config.layers:
        if layer not in attending:
            named = ", ".join(map(str, attending)) or "none"
            raise RecipeError(f"recipe value_norms.layers: {layer} does not attend; these do: {named}")
    return config.layers
