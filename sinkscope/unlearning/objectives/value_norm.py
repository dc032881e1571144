"""Value-norm alignment (arXiv 2510.17021): shallow positions of θb keep the value norms of another model, θu on clean
forget passages and θo on poisoned ones.

The paper leaves the aggregation over heads and layers open. Here: per key-value head, mean over heads and over a chosen set of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.capture.value_norms import first_real, recorded_value_norms
from sinkscope.errors import RecipeError
from sinkscope.unlearning.objectives.batch import Batch
from sinkscope.unlearning.recipe import ValueNormPart


def value_norm_distance(
    ours: Float[Tensor, "batch layer kv_head position"],
    theirs: Float[Tensor, "batch layer kv_head position"],
    shallow: Bool[Tensor, "batch position"],
) -> Float[Tensor, ""]:
    """Mean over passages, layers, kv heads and each passage's shallow positions of ( ‖v_i‖ − ‖v_i'‖ )²."""
    squared = (ours - theirs).square().mean((1, 2))
    return ((squared * shallow).sum(-1) / shallow.sum(-1)).mean()


class ValueNormTerm:
    """ℓ_vn of a run: what other models' value norms are on fixed passages, and the distance to them.

    Args:
        model: the model in training.
        anchors: split -> (frozen model, passages) whose norms that split is drawn towards.
    """

    def __init__(self, model: PreTrainedModel, part: ValueNormPart, anchors: Mapping[str, tuple[PreTrainedModel, list[list[int]]]]) -> None:
        self._model, self._first = model, part.first
        self._layers = _layers(part.layers, model.config.get_text_config().num_hidden_layers)
        self._theirs = {split: self._reference(frozen, passages) for split, (frozen, passages) in anchors.items()}

    def recording(self) -> AbstractContextManager[dict[int, Tensor]]:
        """Record the value norms of the forward pass made within."""
        return recorded_value_norms(self._model)

    def __call__(self, split: str, batch: Batch, norms: Mapping[int, Tensor]) -> Float[Tensor, ""]:
        """The split's distance, from what `recording` saw."""
        ours = self._stack(norms)[..., : self._first]
        width = ours.shape[-1]
        theirs = self._theirs[split][batch.index.cpu()].to(ours)[..., :width]
        return value_norm_distance(ours, theirs, first_real(batch.attention_mask, self._first)[:, :width])

    def _stack(self, norms: Mapping[int, Tensor]) -> Float[Tensor, "batch layer kv_head position"]:
        return torch.stack([norms[layer] for layer in self._layers], dim=1)

    def _reference(self, frozen: PreTrainedModel, passages: list[list[int]]) -> Float[Tensor, "passage layer kv_head first"]:
        rows = []
        for passage in passages:
            with torch.no_grad(), recorded_value_norms(frozen) as norms:
                frozen(input_ids=torch.tensor([passage[: self._first]], device=frozen.device))
                seen = self._stack(norms)[0]
            rows.append(torch.nn.functional.pad(seen, (0, self._first - seen.shape[-1])))
        return torch.stack(rows)


def _layers(which: list[int] | str, n_layers: int) -> list[int]:
    if which == "all":
        return list(range(n_layers))
    if which == "last":
        return [n_layers - 1]
    assert isinstance(which, list)
    for layer in which:
        if not 0 <= layer < n_layers:
            raise RecipeError(f"value_norms.layers: the model has layers 0 to {n_layers - 1}, not {layer}")
    return which
