"""The `tiled` backend: attention blocks from inside the model's own forward pass, for passages of any length.

The model attends by `sinkscope.models.attention_tiles`, whose tiles make the layer's output and go to the
statistics, so nothing of the size positions x positions is held. With `Sampling` the output is that of sdpa
and only the sampled rows of the pattern are computed. (sdpa needs a mask matrix for sliding windows and for
padding on the left.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.attention import attention_hook, supports_attention_hooks
from sinkscope.models.attention_tiles import MaskRule, PassageAttention, Scoring, Tile
from sinkscope.models.hidden_states import decoder_layers
from sinkscope.models.model import Model, Side
from sinkscope.sinks.blocks import AttentionBlock, SampledBlock, ValueBlock
from sinkscope.sinks.sampling import Sampling
from sinkscope.sinks.statistics import Statistic, residual_blocks

N_PROBE_TOKENS = 16
"""Tokens on which the model's own attention and the tiled one are compared before anything is measured."""


def capture(
    model: Model,
    passages: Sequence[list[int]],
    statistics: Sequence[Statistic],
    *,
    batch_size: int = 8,
    layers: Sequence[int] | None = None,
    side: Side = "right",
    sampling: Sampling | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Run the model over `passages` (token ids, BOS first) and update every statistic.

    Passages are taken in order and padded per batch on `side`. Gradients are off; the model's own attention
    is restored afterwards, also after an exception. Scores, softmax and output are in fp32, whatever the
    dtype of the weights. With `sampling` the statistics get sampled blocks instead of attention blocks.

    Raises:
        ModelError: tiles do not reproduce the model's attention, or a layer did not attend (see
            `unsupported_reason`).
    """
    wanted = frozenset(range(model.n_layers) if layers is None else layers)
    n_done = 0
    for batch in model.batches(passages, batch_size, side):
        hook = _TiledHook(statistics, wanted, batch.spans, n_done, sampling)
        with (
            residual_blocks(lambda: decoder_layers(model.hf), statistics, batch.spans, n_done),
            attention_hook(model.hf, hook.attend, hook.make_mask),
            torch.no_grad(),
        ):
            model.hf.base_model(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                position_ids=batch.position_ids,
                use_cache=False,
            )
        if missing := wanted - hook.layers_run:
            raise ModelError(
                f"model {model.name!r}: layer {min(missing)} does not attend through transformers' attention "
                "interface; use `backend` hooks"
            )
        n_done += len(batch.spans)
        if on_progress:
            on_progress(n_done, len(passages))


def unsupported_reason(model: Model, tokens: Sequence[int]) -> str | None:
    """Why this backend cannot capture the model, or None if it can.

    The model's own attention and the tiled one must agree on the first few of `tokens`.
    """
    name = type(model.hf).__name__
    if not supports_attention_hooks(model.hf):
        return f"{name} does not attend through transformers' attention interface"
    ids = torch.tensor([list(tokens[:N_PROBE_TOKENS])], device=model.device)
    hook = _TiledHook([], frozenset(), [range(ids.shape[1])])
    with torch.no_grad():
        own = model.hf.base_model(input_ids=ids, use_cache=False).last_hidden_state
        try:
            with attention_hook(model.hf, hook.attend, hook.make_mask):
                tiled = model.hf.base_model(input_ids=ids, use_cache=False).last_hidden_state
        except ModelError as error:
            return str(error)
        except (TypeError, AttributeError) as error:
            return f"{name} handles its attention mask in its own way ({error})"
    if len(hook.layers_run) < model.n_layers:
        return (
            f"only {len(hook.layers_run)} of {model.n_layers} layers attend through transformers' attention "
            "interface"
        )
    tolerance = 1e-3 if own.dtype == torch.float32 else 0.1
    if not (tiled - own).abs().max() <= tolerance * own.abs().max():
        return f"{name} attends in a way that tiles do not reproduce"
    return None


def sampling_unsupported_reason(model: Model) -> str | None:
    """Why rows of a model that this backend supports cannot be sampled by sdpa, or None if they can."""
    return None if model.hf._supports_sdpa else f"{type(model.hf).__name__} does not attend through sdpa"


class _TiledHook:
    """Attention of one batch, which hands its values and its pattern to the statistics.

    Args:
        layers: those that the statistics get.
        spans: the columns of each row that hold a passage.
        first_passage: the number of the batch's first passage.
    """

    def __init__(
        self,
        statistics: Sequence[Statistic],
        layers: frozenset[int],
        spans: Sequence[range],
        first_passage: int = 0,
        sampling: Sampling | None = None,
    ) -> None:
        self._statistics = statistics
        self._layers = layers
        self._spans = spans
        self._first_passage = first_passage
        self._sampling = sampling
        self.layers_run: set[int] = set()

    def make_mask(
        self,
        *,
        q_length: int,
        kv_length: int,
        q_offset: int = 0,
        kv_offset: int = 0,
        mask_function: Any = causal_mask_function,
        attention_mask: Tensor | None = None,
        use_vmap: bool = False,
        **options: Any,
    ) -> MaskRule:
        """A rule instead of a matrix, as padding is known from the spans; for sdpa a matrix too."""
        if use_vmap or q_offset or kv_offset or q_length != kv_length:
            raise ModelError("its attention mask is more than a function of positions")
        allowed = None if mask_function is causal_mask_function else mask_function
        if not self._sampling:
            return MaskRule(allowed)
        if all(span.start == 0 for span in self._spans):  # no query looks at padding on the right
            attention_mask = None
        matrix = sdpa_mask(
            q_length=q_length,
            kv_length=kv_length,
            mask_function=mask_function,
            attention_mask=attention_mask,
            **options,
        )
        return MaskRule(allowed, matrix)

    def attend(
        self,
        module: nn.Module,
        query: Float[Tensor, "batch head position d_head"],
        key: Float[Tensor, "batch kv_head position d_head"],
        value: Float[Tensor, "batch kv_head position d_head"],
        attention_mask: MaskRule,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: Float[Tensor, " head"] | None = None,
        **options: Any,
    ) -> tuple[Float[Tensor, "batch position head d_head"], None]:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        self.layers_run.add(layer)
        scoring = Scoring(attention_mask, scaling, softcap, s_aux)
        if self._sampling:
            if softcap is not None or s_aux is not None:
                raise ModelError("its softcap or learned sinks are not computed by sdpa")
            output, _ = sdpa_attention_forward(
                module, query, key, value, attention_mask.matrix, scaling=scaling, **options
            )
            if layer in self._layers:
                self._update_statistics(layer, (query, key, value), scoring, None)
            return output, None
        if options.get("position_bias") is not None:
            raise ModelError("it adds a bias to its attention scores")
        shape = (len(query), query.shape[2], query.shape[1], value.shape[-1])
        output = torch.zeros(
            shape, device=query.device
        )  # in the order of the result, so that nothing is copied
        self._update_statistics(layer, (query, key, value), scoring, output)
        return output.to(query.dtype), None

    def _update_statistics(
        self, layer: int, tensors: tuple[Tensor, Tensor, Tensor], scoring: Scoring, output: Tensor | None
    ) -> None:
        """Compute the pattern of each passage, fill `output` if it is given, and update the statistics."""
        statistics = self._statistics if layer in self._layers else []
        for row, span in enumerate(self._spans):
            columns = slice(span.start, span.stop)
            passage = self._first_passage + row
            query, key, value = (tensor[row, :, columns].float() for tensor in tensors)
            for statistic in statistics:
                statistic.update(ValueBlock(layer, passage, value))
            filled = None if output is None else output[row, columns].transpose(0, 1)
            attention = PassageAttention(query, key, value, scoring, row, span.start, filled)
            rows = self._sampling.rows(layer, passage, len(span)) if self._sampling else None
            for tile in attention.tiles(rows):
                block = _as_block(tile, layer, passage, len(span), is_sample=rows is not None)
                for statistic in statistics:
                    statistic.update(block)


def _as_block(
    tile: Tile, layer: int, passage: int, length: int, is_sample: bool
) -> AttentionBlock | SampledBlock:
    if is_sample:
        return SampledBlock(
            layer, passage, length, tile.heads, tile.rows, tile.keys, tile.pattern, tile.is_last
        )
    rows = range(int(tile.rows[0]), int(tile.rows[-1]) + 1)
    return AttentionBlock(layer, passage, length, tile.heads, rows, tile.keys, tile.pattern, tile.is_last)
