"""The `tiled` backend: attention blocks from inside the model's own forward pass, for passages of any length.

The model attends by `sinkscope.models.attention_tiles`, whose tiles make the layer's output and go to the
statistics, so nothing of the size positions x positions is held. With `Sampling` the output is that of sdpa
and only the sampled rows of the pattern are computed. (sdpa needs a mask matrix for sliding windows.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from sinkscope.errors import ModelError, first_line
from sinkscope.models.attention import attention_hook, supports_attention_hooks
from sinkscope.models.attention_tiles import MaskRule, PassageAttention, Scoring, Tile
from sinkscope.models.hidden_states import decoder_layers
from sinkscope.models.layers import LayerNumbers
from sinkscope.models.model import Model
from sinkscope.models.padding import PaddedBatch, differs
from sinkscope.sinks.capture import (
    AttentionBlock,
    Backend,
    Recorder,
    Sampling,
    ValueBlock,
    Visibility,
    VisibleKeys,
    needs_scores,
    with_every_row,
)
from sinkscope.sinks.probing import make_probe


class TiledBackend(Backend):
    """Reads tiles of all rows, or of a sample, inside transformers' attention interface.

    Scores, softmax and output are in fp32, whatever the dtype of the weights.
    """

    name = "tiled"

    def _capture_batch(self, model: Model, batch: PaddedBatch, recorder: Recorder) -> Visibility:
        hook = _TiledHook(model, recorder, self.sampling)
        with (
            recorder.residual_blocks(lambda: decoder_layers(model.hf)),
            attention_hook(model.hf, hook.attend, hook.make_mask),
        ):
            _run(model, batch)
        if missing := set(model.attention_layers) - hook.rules.keys():
            raise ModelError(
                f"model {model.name!r}: layer {min(missing)} does not attend through transformers' attention "
                "interface; use `backend` hooks"
            )
        rules = {id(rule): _from_rule(rule) for rule in hook.rules.values()}  # layers of a kind share one
        return {layer: rules[id(hook.rules[layer])] for layer in model.attention_layers}

    @classmethod
    def unsupported_reason(cls, model: Model, tokens: Sequence[int]) -> str | None:
        """Also compares the model's own outputs with those of tiled attention."""
        name = type(model.hf).__name__
        if not supports_attention_hooks(model.hf):
            return f"{name} does not attend through transformers' attention interface"
        batch = make_probe(model, tokens)
        hook = _TiledHook(model, Recorder([], [*enumerate(map(len, batch.spans))]))
        with torch.no_grad(), model.eval_mode():
            own = _run(model, batch)
            try:
                with attention_hook(model.hf, hook.attend, hook.make_mask):
                    tiled = _run(model, batch)
            except ModelError as error:
                return str(error)
            except Exception as error:  # of many types, from the code of the model
                return f"{name} handles its attention in its own way ({first_line(error)[:120]})"
        if surplus := hook.rules.keys() - set(model.attention_layers):
            return f"layer {min(surplus)} of {name} attends, and its configuration says that it does not"
        if missing := set(model.attention_layers) - hook.rules.keys():
            return f"layer {min(missing)} of {name} does not attend through transformers' attention interface"
        if differs(tiled, own, batch.mask):
            return f"{name} attends in a way that tiles do not reproduce"
        return None


def _run(model: Model, batch: PaddedBatch) -> Float[Tensor, "batch position d_model"]:
    """A forward pass without logits, where the model has one; returns its output.

    Positions are left to the model, as padding is on the right.
    """
    network = model.hf.get_decoder() if model.hf.base_model is model.hf else model.hf.base_model
    return network(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False, return_dict=True)[
        0
    ]


def _from_rule(rule: MaskRule) -> VisibleKeys | None:
    """The visible keys of a layer, from its mask function."""
    allowed = rule.allowed
    if allowed is None:
        return None

    def visible(rows: Int[Tensor, " row"], n_keys: int) -> Bool[Tensor, "row key"]:
        zero = torch.zeros(1, 1, dtype=torch.long)
        return allowed(zero, zero, rows[:, None], torch.arange(n_keys)[None, :]).expand(len(rows), n_keys)

    return visible


class _TiledHook:
    """Attention of one batch, padded on the right, which hands its values and its pattern to a recorder."""

    def __init__(self, model: Model, recorder: Recorder, sampling: Sampling | None = None) -> None:
        self._numbers = LayerNumbers(model.attention_layers)
        self._n_heads = model.n_heads
        self._recorder = recorder
        self._sampling = sampling
        self.rules: dict[int, MaskRule] = {}
        """Of the layers that have attended."""

    def make_mask(
        self, *, q_length: int, kv_length: int, mask_function: Any = causal_mask_function, **options: Any
    ) -> MaskRule:
        """A rule instead of a matrix, as no query looks at padding on the right; for sdpa a matrix too."""
        if any(map(options.get, ("use_vmap", "q_offset", "kv_offset"))) or q_length != kv_length:
            raise ModelError("its attention mask is more than a function of positions")
        matrix = None
        if self._sampling:
            options["attention_mask"] = None
            matrix = sdpa_mask(q_length=q_length, kv_length=kv_length, mask_function=mask_function, **options)
        return MaskRule(None if mask_function is causal_mask_function else mask_function, matrix)

    def attend(
        self,
        module: nn.Module,
        query: Float[Tensor, "batch head position d_head"],
        key: Float[Tensor, "batch kv_head position d_head"],
        value: Float[Tensor, "batch kv_head position d_head"],
        attention_mask: MaskRule,
        **options: Any,
    ) -> tuple[Float[Tensor, "batch position head d_head"], None]:
        layer = self._numbers.of_call(module)
        if layer is None:
            raise ModelError(f"its {type(module).__name__} attends outside of the layers that do")
        if query.shape[1] != self._n_heads:
            raise ModelError(
                f"its layer {layer} has {query.shape[1]} heads, and its configuration says {self._n_heads}"
            )
        if layer in self.rules:
            raise ModelError(f"its layer {layer} attends more than once in a pass")
        self.rules[layer] = attention_mask
        scoring = Scoring(attention_mask, *map(options.get, ("scaling", "softcap", "s_aux", "position_bias")))
        if self._sampling:
            if scoring.softcap is not None or scoring.learned_sink is not None:
                raise ModelError("its softcap or learned sinks are not computed by sdpa")
            matrix = attention_mask.matrix
            matrix = None if matrix is None else matrix.to(query.device)
            output, _ = sdpa_attention_forward(module, query, key, value, matrix, **options)
            self._record(layer, (query, key, value), scoring, None)
            return output, None
        # in the order of the result, so that nothing is copied
        output = torch.zeros(*query.transpose(1, 2).shape[:3], value.shape[-1], device=query.device)
        self._record(layer, (query, key, value), scoring, output)
        return output.to(query.dtype), None

    def _record(
        self, layer: int, tensors: tuple[Tensor, Tensor, Tensor], scoring: Scoring, output: Tensor | None
    ) -> None:
        """Compute the pattern of each passage, fill `output` if it is given, and record the blocks."""
        for row, (passage, length) in enumerate(self._recorder.passages):
            query, key, value = (tensor[row, :, :length].float() for tensor in tensors)
            self._recorder.update(ValueBlock(layer, passage, value, key))
            filled = None if output is None else output[row, :length].transpose(0, 1)
            kept = needs_scores(self._recorder.statistics, passage)
            attention = PassageAttention(query, key, value, scoring, row, output=filled, keep_scores=kept)
            rows = self._sampling.rows(layer, passage, length) if self._sampling else None
            for tile in attention.tiles(rows):
                self._recorder.update(_to_block(tile, layer, passage, length, rows is not None))
            if rows is None:
                continue
            if statistics := with_every_row(self._recorder.statistics, passage):
                for tile in attention.tiles():
                    block = _to_block(tile, layer, passage, length, is_sample=False)
                    for statistic in statistics:
                        statistic.update(block)


def _to_block(tile: Tile, layer: int, passage: int, length: int, is_sample: bool) -> AttentionBlock:
    part = (tile.heads, tile.rows, tile.keys, tile.pattern, tile.is_last)
    return AttentionBlock(layer, passage, length, *part, is_sample, tile.scores)
