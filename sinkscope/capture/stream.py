"""Blocks from inside transformers' attention interface: tiles of a few query rows at a time, so that length costs no memory.

Every tile of the pattern is computed once. It makes the layer's output and it is what the reducers get. Nothing of the size positions × positions
is ever held, keys of grouped heads are not repeated, and padding is left out instead of masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from sinkscope.capture.batches import Side, padded_batches
from sinkscope.capture.blocks import AttentionBlock, ValueBlock
from sinkscope.capture.reducers import Reducer
from sinkscope.capture.residuals import layers_of, residual_blocks
from sinkscope.errors import ModelError
from sinkscope.models import Model, switched_attention
from sinkscope.progress import Report

NAME = "sinkscope_stream"
TILE = 1 << 21
"""Numbers in a tile: eight megabytes in fp32. Larger ones make faster products, up to what the last level of cache holds."""
MAX_ROWS = 128
PROBE = 16
"""Tokens on which a model's own attention and ours are compared before anything is measured."""


@dataclass
class _Capture:
    """What one batch is captured for. `spans`: where each passage lies in its row; `first`: the number of the first one."""

    reducers: Sequence[Reducer]
    layers: frozenset[int]
    spans: Sequence[range]
    first: int = 0
    fired: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Rule:
    """Which keys a query may see, as transformers' mask function instead of a matrix: (batch, head, query, key) → bool. None is plain causality."""

    allowed: Callable[..., Tensor] | None

    def rows(self, row: int, rows: range, keys: range, device: torch.device) -> Bool[Tensor, "row key"]:
        assert self.allowed is not None
        query, key = torch.arange(rows.start, rows.stop, device=device), torch.arange(keys.start, keys.stop, device=device)
        batch, head = torch.tensor([[row], [0]], device=device)
        return self.allowed(batch, head, query[:, None], key[None, :]).expand(len(rows), len(keys))


_active: list[_Capture] = []


def capture(
    model: Model,
    passages: Sequence[list[int]],
    reducers: Sequence[Reducer],
    *,
    batch_size: int = 8,
    layers: Sequence[int] | None = None,
    side: Side = "right",
    report: Report | None = None,
) -> None:
    """Run the model over `passages` (token ids, BOS first) and feed every reducer.

    Passages are taken in order, padded per batch on the `side` given. Gradients are off; the model's own attention is restored afterwards, also after an
    exception. Scores, softmax and output are in fp32, whatever the weights are.

    Raises:
        ModelError: the model's attention does something that tiles do not reproduce, or a layer never attended (see `why_not`).
    """
    wanted = frozenset(range(model.n_layers) if layers is None else layers)
    done = 0
    for batch in padded_batches(passages, batch_size, model.tokenizer.pad_token_id or 0, model.device, side):
        residual = residual_blocks(lambda: layers_of(model.hf), reducers, batch.spans, done)
        with residual, _capturing(model, _Capture(reducers, wanted, batch.spans, done)) as running, torch.no_grad():
            model.hf.base_model(input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False)
        if missing := wanted - running.fired:
            raise ModelError(f"model {model.name!r}: layer {min(missing)} never attended through transformers' attention interface; use --source lens")
        done += len(batch.spans)
        if report:
            report(done, len(passages))


def why_not(model: Model, tokens: Sequence[int]) -> str | None:
    """Why this model cannot be streamed, or None if it can: both ways of attending must agree on the first few of some tokens."""
    if not model.hf._can_set_attn_implementation():
        return f"{type(model.hf).__name__} does not attend through transformers' attention interface"
    ids = torch.tensor([list(tokens[:PROBE])], device=model.device)
    running = _Capture([], frozenset(), [range(ids.shape[1])])
    with torch.no_grad():
        own = model.hf.base_model(input_ids=ids, use_cache=False).last_hidden_state
        try:
            with _capturing(model, running):
                ours = model.hf.base_model(input_ids=ids, use_cache=False).last_hidden_state
        except ModelError as error:
            return str(error)
        except (TypeError, AttributeError) as error:
            return f"{type(model.hf).__name__} treats its attention mask in a way of its own ({error})"
    if len(running.fired) < model.n_layers:
        return f"only {len(running.fired)} of {model.n_layers} layers attend through transformers' attention interface"
    tolerance = 1e-3 if own.dtype == torch.float32 else 0.1
    if not (ours - own).abs().max() <= tolerance * own.abs().max():
        return f"{type(model.hf).__name__} attends in a way that tiles do not reproduce"
    return None


@contextmanager
def _capturing(model: Model, running: _Capture) -> Iterator[_Capture]:
    _active.append(running)
    try:
        with switched_attention(model.hf, NAME):
            yield running
    finally:
        _active.pop()


def _rule(
    batch_size: int, q_length: int, kv_length: int, q_offset: int = 0, kv_offset: int = 0, mask_function: Any = causal_mask_function, **others: Any
) -> Rule:
    """In the place of a mask matrix. Padding is known from the batch."""
    if others.get("use_vmap") or q_offset or kv_offset or q_length != kv_length:
        raise ModelError("its attention mask is more than a function of positions")
    return Rule(None if mask_function is causal_mask_function else mask_function)


def _attend(
    module: torch.nn.Module,
    query: Float[Tensor, "batch head position d_head"],
    key: Float[Tensor, "batch kv_head position d_head"],
    value: Float[Tensor, "batch kv_head position d_head"],
    attention_mask: Rule,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Float[Tensor, " head"] | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "batch position head d_head"], None]:
    """transformers' attention function: scores, softmax and output, tile by tile."""
    if others.get("position_bias") is not None:
        raise ModelError("it adds a bias to its attention scores")
    running, layer = _active[-1], int(module.layer_idx)  # type: ignore[arg-type]
    running.fired.add(layer)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = torch.zeros(*query.shape[:3], value.shape[-1], device=query.device)
    for row, span in enumerate(running.spans):
        real = slice(span.start, span.stop)
        q, k, v = (each[row, :, real].float() for each in (query, key, value))
        blocks = _Passage(q, k, v, output[row, :, real], attention_mask, (row, span.start), scaling, softcap, s_aux, layer, running.first + row)
        if layer not in running.layers:
            for _ in blocks.tiles():
                pass
            continue
        for reducer in running.reducers:
            reducer.update(ValueBlock(layer, running.first + row, v))
        for block in blocks.tiles():
            for reducer in running.reducers:
                reducer.update(block)
    return output.transpose(1, 2).to(query.dtype).contiguous(), None


@dataclass
class _Passage:
    """One layer's attention on one passage without padding, which lies at `place` (row, first position) of the batch. `tiles` fills `output`."""

    query: Float[Tensor, "head position d_head"]
    key: Float[Tensor, "kv_head position d_head"]
    value: Float[Tensor, "kv_head position d_head"]
    output: Float[Tensor, "head position d_head"]
    rule: Rule
    place: tuple[int, int]
    scaling: float
    softcap: float | None
    learned_sink: Float[Tensor, " head"] | None
    layer: int
    number: int

    def tiles(self) -> Iterator[AttentionBlock]:
        """The pattern, ascending in rows and, within some rows, in heads. A tile's memory is used again for the next one."""
        (n_heads, length, d_head), n_kv = self.query.shape, len(self.key)
        group = n_heads // n_kv
        size = max(1, min(MAX_ROWS, length, TILE // (group * length)))
        extra = self.learned_sink is not None
        memory = torch.empty(max(TILE, group * size * (length + extra)), device=self.query.device)
        key = self.key.mT.contiguous()  # products with it are faster than with a transposed view
        above = torch.ones(size, size, dtype=torch.bool, device=self.query.device).triu(1)
        for start in range(0, length, size):
            rows = range(start, min(start + size, length))
            keys, hidden = self._visible(rows, above)
            per_tile = max(1, min(n_kv, TILE // (group * size * (len(keys) + extra))))
            for first in range(0, n_kv, per_tile):
                kv = range(first, min(first + per_tile, n_kv))
                heads = range(kv.start * group, kv.stop * group)
                width = len(keys) + extra
                shape = (len(kv), group * len(rows), width)
                scores = memory[: shape[0] * shape[1] * width].view(shape)
                columns = slice(keys.start, keys.stop)
                query = self.query[heads.start : heads.stop, rows.start : rows.stop].reshape(len(kv), -1, d_head)
                torch.bmm(query * self.scaling, key[kv.start : kv.stop, :, columns], out=scores[..., : len(keys)])
                by_head = scores.view(len(heads), len(rows), width)
                if self.softcap is not None:
                    scores.div_(self.softcap).tanh_().mul_(self.softcap)
                if hidden is not None:
                    by_head[..., len(keys) - hidden.shape[-1] : len(keys)].masked_fill_(hidden, float("-inf"))
                if self.learned_sink is not None:
                    by_head[..., -1] = self.learned_sink[heads.start : heads.stop, None].float()
                torch.softmax(scores, -1, out=scores)
                pattern = scores[..., : len(keys)]
                attended = torch.bmm(pattern, self.value[kv.start : kv.stop, columns])
                self.output[heads.start : heads.stop, rows.start : rows.stop] = attended.view(len(heads), len(rows), -1)
                last = rows.stop == length and kv.stop == n_kv
                yield AttentionBlock(self.layer, self.number, length, heads, rows, keys, by_head[..., : len(keys)], last)

    def _visible(self, rows: range, above: Tensor) -> tuple[range, Bool[Tensor, "row key"] | None]:
        """The keys that some of the rows may see, and which of the last of them each row may not."""
        if self.rule.allowed is None:
            return range(rows.stop), above[: len(rows), : len(rows)]
        row, offset = self.place
        shifted, everywhere = range(rows.start + offset, rows.stop + offset), range(offset, offset + self.key.shape[1])
        allowed = self.rule.rows(row, shifted, everywhere, self.query.device)
        seen = allowed.any(0).nonzero()
        keys = range(int(seen.min()), int(seen.max()) + 1)
        if keys.stop > rows.stop:
            raise ModelError("its attention looks ahead")
        return keys, ~allowed[:, keys.start : keys.stop]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _rule)
