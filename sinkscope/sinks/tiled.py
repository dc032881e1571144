"""Blocks from inside transformers' attention interface: tiles of a few query rows at a time, so that length costs no memory.

Every tile of the pattern is computed once. It makes the layer's output and it is what the statistics get. Nothing of the size positions × positions
is ever held, keys of grouped heads are not repeated, and padding is left out instead of masked. (A sample takes its output from sdpa, which wants a matrix
for windows and for padding on the left.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.batches import Side
from sinkscope.models.hidden_states import decoder_layers, residual_blocks
from sinkscope.models.model import Model, attention_implementation
from sinkscope.sinks.blocks import AttentionBlock, SampledBlock, ValueBlock
from sinkscope.sinks.sampling import Sampling
from sinkscope.sinks.statistics import Statistic

NAME, SAMPLED = "sinkscope_stream", "sinkscope_sampled"
TILE = 1 << 21
"""Numbers in a tile: eight megabytes in fp32. Larger ones make faster products, up to what the last level of cache holds."""
MAX_ROWS = 128
PROBE = 16
"""Tokens on which a model's own attention and ours are compared before anything is measured."""


@dataclass
class _Capture:
    """What one batch is captured for. `spans`: where each passage lies in its row; `first`: the number of the first one."""

    statistics: Sequence[Statistic]
    layers: frozenset[int]
    spans: Sequence[range]
    first: int = 0
    sampling: Sampling | None = None
    fired: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Rule:
    """Which keys a query may see, as transformers' mask function instead of a matrix: (batch, head, query, key) → bool. None is plain causality.

    `matrix` is there for sdpa alone, where that makes the output; it too is None for plain causality.
    """

    allowed: Callable[..., Tensor] | None
    matrix: Tensor | None = None

    def rows(
        self, row: int, query: Int[Tensor, " row"], keys: range, device: torch.device
    ) -> Bool[Tensor, "row key"]:
        assert self.allowed is not None
        query, key = query.to(device), torch.arange(keys.start, keys.stop, device=device)
        batch, head = torch.tensor([[row], [0]], device=device)
        return self.allowed(batch, head, query[:, None], key[None, :]).expand(len(query), len(keys))


_active: list[_Capture] = []


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
    """Run the model over `passages` (token ids, BOS first) and feed every statistic.

    Passages are taken in order, padded per batch on the `side` given. Gradients are off; the model's own attention is restored afterwards, also after an
    exception. Scores, softmax and output are in fp32, whatever the weights are. With `sampling` the output is sdpa's, and there are sampled blocks in
    the place of attention blocks.

    Raises:
        ModelError: the model's attention does something that tiles do not reproduce, or a layer never attended (see `why_not`).
    """
    wanted = frozenset(range(model.n_layers) if layers is None else layers)
    done = 0
    for batch in model.batches(passages, batch_size, side):
        residual = residual_blocks(lambda: decoder_layers(model.hf), statistics, batch.spans, done)
        with (
            residual,
            _capturing(model, _Capture(statistics, wanted, batch.spans, done, sampling)) as running,
            torch.no_grad(),
        ):
            model.hf.base_model(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                position_ids=batch.position_ids,
                use_cache=False,
            )
        if missing := wanted - running.fired:
            raise ModelError(
                f"model {model.name!r}: layer {min(missing)} never attended through transformers' attention interface; use `backend` lens"
            )
        done += len(batch.spans)
        if on_progress:
            on_progress(done, len(passages))


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


def why_not_sampled(model: Model) -> str | None:
    """Why rows of this model, which can be streamed, cannot be sampled, or None if they can: sdpa has to make its output."""
    return None if model.hf._supports_sdpa else f"{type(model.hf).__name__} does not attend through sdpa"


@contextmanager
def _capturing(model: Model, running: _Capture) -> Iterator[_Capture]:
    _active.append(running)
    try:
        with attention_implementation(model.hf, SAMPLED if running.sampling else NAME):
            yield running
    finally:
        _active.pop()


def _rule(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Any = causal_mask_function,
    **others: Any,
) -> Rule:
    """In the place of a mask matrix. Padding is known from the batch."""
    if others.get("use_vmap") or q_offset or kv_offset or q_length != kv_length:
        raise ModelError("its attention mask is more than a function of positions")
    return Rule(None if mask_function is causal_mask_function else mask_function)


def _sampled_rule(*args: Any, **options: Any) -> Rule:
    """With the matrix that sdpa needs for its output: none under plain causality, where padding on the right is never looked at."""
    if all(span.start == 0 for span in _active[-1].spans):
        options["attention_mask"] = None
    return Rule(_rule(*args, **options).allowed, sdpa_mask(*args, **options))


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
    output = torch.zeros(
        len(query), query.shape[2], query.shape[1], value.shape[-1], device=query.device
    )  # as it is asked for, so that nothing is copied
    _feed(module, query, key, value, _Scores(attention_mask, scaling, softcap, s_aux), output)
    return output.to(query.dtype), None


def _attend_sampled(
    module: torch.nn.Module,
    query: Float[Tensor, "batch head position d_head"],
    key: Float[Tensor, "batch kv_head position d_head"],
    value: Float[Tensor, "batch kv_head position d_head"],
    attention_mask: Rule,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "batch position head d_head"], None]:
    """transformers' attention function: the output by sdpa, the pattern in some rows besides."""
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask.matrix, scaling=scaling, **others
    )
    _feed(module, query, key, value, _Scores(attention_mask, scaling), None)
    return output, None


@dataclass(frozen=True)
class _Scores:
    """What makes a layer's pattern from its queries and keys."""

    rule: Rule
    scaling: float | None
    softcap: float | None = None
    learned_sink: Float[Tensor, " head"] | None = None


def _feed(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, scores: _Scores, output: Tensor | None
) -> None:
    """One layer: hand its values and its pattern to the statistics and, but for a sample, fill `output`."""
    running, layer = _active[-1], int(module.layer_idx)  # type: ignore[arg-type]
    running.fired.add(layer)
    statistics = running.statistics if layer in running.layers else []
    if output is None and not statistics:
        return
    for row, span in enumerate(running.spans):
        real, number = slice(span.start, span.stop), running.first + row
        q, k, v = (each[row, :, real].float() for each in (query, key, value))
        for statistic in statistics:
            statistic.update(ValueBlock(layer, number, v))
        filled = None if output is None else output[row, real].transpose(0, 1)
        passage = _Passage(q, k, v, filled, scores, (row, span.start), layer, number)
        drawn = running.sampling.rows(layer, number, len(span)) if running.sampling else None
        for block in passage.tiles(drawn):
            for statistic in statistics:
                statistic.update(block)


@dataclass
class _Passage:
    """One layer's attention on one passage without padding, which lies at `place` (row, first position) of the batch. `tiles` fills `output`;
    a sample has none."""

    query: Float[Tensor, "head position d_head"]
    key: Float[Tensor, "kv_head position d_head"]
    value: Float[Tensor, "kv_head position d_head"]
    output: Float[Tensor, "head position d_head"] | None
    scores: _Scores
    place: tuple[int, int]
    layer: int
    number: int

    def tiles(self, drawn: Int[Tensor, " row"] | None = None) -> Iterator[AttentionBlock | SampledBlock]:
        """The pattern in all rows or the ones drawn, ascending in rows and, within some rows, in heads. A tile's memory is used again for the next one."""
        (n_heads, length, d_head), n_kv = self.query.shape, len(self.key)
        group, tile = (
            n_heads // n_kv,
            TILE if drawn is None else TILE // 4,
        )  # with no output to make, small tiles are as fast
        size = max(1, min(MAX_ROWS, length, tile // (group * length)))
        scaling = d_head**-0.5 if self.scores.scaling is None else self.scores.scaling
        softcap, learned_sink, extra = (
            self.scores.softcap,
            self.scores.learned_sink,
            self.scores.learned_sink is not None,
        )
        memory = torch.empty(max(tile, group * size * (length + extra)), device=self.query.device)
        key = self.key.mT.contiguous()  # products with it are faster than with a transposed view
        chunks = (torch.arange(length) if drawn is None else drawn).split(size)
        for number, rows in enumerate(chunks):
            chosen = rows.to(self.query.device)
            keys, hidden = self._visible(rows)
            per_tile = max(1, min(n_kv, tile // (group * size * (len(keys) + extra))))
            for first in range(0, n_kv, per_tile):
                kv = range(first, min(first + per_tile, n_kv))
                heads = range(kv.start * group, kv.stop * group)
                width = len(keys) + extra
                shape = (len(kv), group * len(rows), width)
                scores = memory[: shape[0] * shape[1] * width].view(shape)
                columns = slice(keys.start, keys.stop)
                query = self.query[heads.start : heads.stop, chosen].view(len(kv), -1, d_head)
                torch.bmm(query * scaling, key[kv.start : kv.stop, :, columns], out=scores[..., : len(keys)])
                by_head = scores.view(len(heads), len(rows), width)
                if softcap is not None:
                    scores.div_(softcap).tanh_().mul_(softcap)
                if hidden is not None:
                    by_head[..., len(keys) - hidden.shape[-1] : len(keys)].masked_fill_(hidden, float("-inf"))
                if learned_sink is not None:
                    by_head[..., -1] = learned_sink[heads.start : heads.stop, None].float()
                torch.softmax(scores, -1, out=scores)
                pattern = by_head[..., : len(keys)]
                last = number == len(chunks) - 1 and kv.stop == n_kv
                if self.output is None:
                    yield SampledBlock(self.layer, self.number, length, heads, rows, keys, pattern, last)
                    continue
                here = range(int(rows[0]), int(rows[-1]) + 1)
                attended = torch.bmm(scores[..., : len(keys)], self.value[kv.start : kv.stop, columns])
                self.output[heads.start : heads.stop, here.start : here.stop] = attended.view(
                    len(heads), len(rows), -1
                )
                yield AttentionBlock(self.layer, self.number, length, heads, here, keys, pattern, last)

    def _visible(self, rows: Int[Tensor, " row"]) -> tuple[range, Bool[Tensor, "row key"] | None]:
        """The keys that some of the rows may see, and which of the last of them each row may not."""
        first, last = int(rows[0]), int(rows[-1])
        if self.scores.rule.allowed is None:
            return range(last + 1), (torch.arange(first + 1, last + 1) > rows[:, None]).to(self.query.device)
        row, offset = self.place
        allowed = self.scores.rule.rows(
            row, rows + offset, range(offset, offset + self.key.shape[1]), self.query.device
        )
        seen = allowed.any(0).nonzero()
        keys = range(int(seen.min()), int(seen.max()) + 1)
        if keys.stop > last + 1:
            raise ModelError("its attention looks ahead")
        return keys, ~allowed[:, keys.start : keys.stop]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _rule)
AttentionInterface.register(SAMPLED, _attend_sampled)
AttentionMaskInterface.register(SAMPLED, _sampled_rule)
