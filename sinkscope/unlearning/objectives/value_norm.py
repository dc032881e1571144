"""Value-norm alignment (arXiv 2510.17021): shallow positions of θb keep the value norms of another model, θu on clean
forget passages and θo on poisoned ones.

The paper leaves the aggregation over heads and layers open. Here: per key-value head, mean over heads and over a chosen set of layers.
The authors' code has two other terms, which go by names of their own: `shrink` and `cosine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from sinkscope.errors import RecipeError
from sinkscope.models.value_norms import first_real_tokens, record_values
from sinkscope.unlearning.objectives.batch import Batch, Passages
from sinkscope.unlearning.recipe import ValueNormConfig

Values = Float[Tensor, "batch layer kv_head first d_head"]


def squared_difference(ours: Values, theirs: Values) -> Float[Tensor, "batch layer kv_head first"]:
    """`align`: ( ‖v_i‖ − ‖v_i'‖ )²."""
    return (ours.norm(dim=-1) - theirs.norm(dim=-1)).square()


def squared_norm(ours: Values, theirs: Values) -> Float[Tensor, "batch layer kv_head first"]:
    """`shrink`: ‖v_i‖²; there is nothing to compare with."""
    return ours.square().sum(-1)


def turned(ours: Values, theirs: Values) -> Float[Tensor, "batch layer kv_head first"]:
    """`cosine`: 1 − cos(v_i, v_i')."""
    return 1 - torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)


KINDS = {
    "align": (squared_difference, ("forget", "poisoned")),
    "shrink": (squared_norm, ("forget",)),
    "cosine": (turned, ("poisoned",)),
}
"""What is summed over positions, and on which splits."""


class ValueNormTerm:
    """ℓ_vn of a run: what frozen models' value vectors are on fixed passages, and the distance to them: the mean over passages, chosen layers,
    kv heads and each passage's first real tokens.

    Args:
        model: the model in training.
        anchors: split -> (frozen model, passages) that the split is compared with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        part: ValueNormConfig,
        anchors: Mapping[str, tuple[PreTrainedModel, Passages]],
    ) -> None:
        self._model, self._first = model, part.first
        self._distance, wanted = KINDS[part.kind]
        self.splits = frozenset(split for split in wanted if split in anchors)
        self._layers = layers_of_part(part, model.config.get_text_config().num_hidden_layers)
        self._theirs = {split: self._reference(*anchors[split]) for split in self.splits}

    def recording(self) -> AbstractContextManager[dict[int, Tensor]]:
        """Record the values of the forward pass made within."""
        return record_values(self._model, self._layers)

    def __call__(self, split: str, batch: Batch, values: Mapping[int, Tensor]) -> Float[Tensor, ""]:
        """The split's distance, from what `recording` saw."""
        shallow = first_real_tokens(batch.attention_mask, self._first)
        ours, real = self._shallow(values, shallow)
        theirs = self._theirs[split][batch.index.cpu()].to(ours)[..., : ours.shape[-2], :]
        distance = self._distance(ours, theirs).mean((1, 2))
        return ((distance * real).sum(-1) / real.sum(-1)).mean()

    def _shallow(
        self, values: Mapping[int, Tensor], shallow: Bool[Tensor, "batch position"]
    ) -> tuple[Values, Bool[Tensor, "batch first"]]:
        """The vectors of the shallow positions, moved to the left; a passage shorter than that ends in others, which the mask leaves out."""
        width = int(shallow.sum(-1).max())
        columns = shallow.long().argsort(dim=-1, descending=True, stable=True)[:, :width]
        real = shallow.gather(1, columns)
        picked = [
            values[layer].gather(
                2, columns[:, None, :, None].expand(-1, values[layer].shape[1], -1, values[layer].shape[-1])
            )
            for layer in self._layers
        ]
        return torch.stack(picked, dim=1).float(), real

    def _reference(
        self, frozen: PreTrainedModel, passages: Passages
    ) -> Float[Tensor, "passage layer kv_head first d_head"]:
        rows = []
        for tokens in passages.tokens:
            with torch.no_grad(), record_values(frozen, self._layers) as values:
                frozen(input_ids=torch.tensor([tokens[: self._first]], device=frozen.device), use_cache=False)
                seen = torch.stack([values[layer][0].float().cpu() for layer in self._layers])
            rows.append(torch.nn.functional.pad(seen, (0, 0, 0, self._first - seen.shape[-2])))
        return torch.stack(rows)


def layers_of_part(part: ValueNormConfig, n_layers: int) -> list[int]:
    """The layers that the term reads.

    Raises:
        RecipeError: the model has no such layer.
    """
    if part.layers == "all":
        return list(range(n_layers))
    if part.layers == "last":
        return [n_layers - 1]
    for layer in part.layers:
        if not 0 <= layer < n_layers:
            raise RecipeError(
                f"recipe value_norms.layers: the model has layers 0 to {n_layers - 1}, not {layer}"
            )
    return part.layers
