"""Measure one condition: a model and the passages it reads, with or without a trigger."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.sinks.locate import CaptureConfig, locate, locate_passage
from sinkscope.sinks.maps import BinnedPattern, bin_size_for, heads_of
from sinkscope.sinks.sink_map import SinkMap
from sinkscope.sinks.statistics import FirstValueNorms, SpanMass, Statistic
from sinkscope.triggers import Placement, Trigger, place

FIRST_POSITIONS = 16
"""Value norms are kept per passage at this many positions."""
MAX_LOGITS = 1 << 26
"""Numbers in one chunk of logits: a quarter of a gigabyte in fp32."""


@dataclass(frozen=True)
class Condition:
    """A model and the passages (token ids, BOS first) that it reads.

    Attributes:
        label: the condition's name in tables and figures.
        spans: where the trigger is in each passage, or would be in the triggered one; None if there is no
        trigger.
    """

    label: str
    model: Model
    passages: Sequence[list[int]]
    spans: list[range] | None = None


@dataclass(frozen=True)
class ConditionStatistics:
    """What is measured of one condition.

    Attributes:
        sinks: over all passages.
        layer_map: mean attention maps of one layer's heads over the full-length passages.
        pattern: mean attention maps of all heads, layer by layer, in coarse bins.
        value_norms: of every passage at the first positions.
        top1: mean top-1 probability of the next token.
        span_mass: attention to the trigger's span by the queries after it, if there are spans (see
        `SpanMass`).
    """

    sinks: SinkMap
    layer_map: Float[np.ndarray, "head bin bin"]
    pattern: Float[np.ndarray, "layer_head bin bin"]
    value_norms: Float[np.ndarray, "passage layer kv_head position"]
    top1: Float[np.ndarray, " position"]
    span_mass: Float[np.ndarray, "layer head"] | None


def measure(
    condition: Condition,
    config: CaptureConfig,
    *,
    layer: int,
    bin_size: int,
    on_progress: OnProgress | None = None,
) -> ConditionStatistics:
    """Measure a condition in one pass for attention and values and one for the next token.

    Args:
        layer, bin_size: of `layer_map`.
    """
    model, passages = condition.model, condition.passages
    length = max(map(len, passages))
    all_heads = heads_of(range(model.n_layers), model.n_heads)
    layer_map = BinnedPattern(heads_of([layer], model.n_heads), length, bin_size, full_length_only=True)
    coarse = bin_size_for(len(all_heads), length)
    pattern = BinnedPattern(all_heads, length, coarse, full_length_only=True)
    norms = FirstValueNorms(model.n_layers, min(FIRST_POSITIONS, *map(len, passages)))
    accumulators: list[Statistic] = [layer_map, norms, pattern]
    span_mass = None
    if condition.spans is not None:
        span_mass = SpanMass(model.n_layers, model.n_heads, condition.spans)
        accumulators.append(span_mass)
    sinks = locate(model, passages, config, accumulators=accumulators, on_progress=part_of(on_progress, 0, 2))
    top1 = top1_by_position(
        model, passages, batch_size=config.batch_size, on_progress=part_of(on_progress, 1, 2)
    )
    return ConditionStatistics(
        sinks,
        layer_map.result()["pattern"].numpy(),
        pattern.result()["pattern"].numpy(),
        norms.result()["value_norm"].numpy(),
        top1.numpy(),
        span_mass.result()["span_mass"].numpy() if span_mass else None,
    )


def part_of(on_progress: OnProgress | None, index: int, n_parts: int) -> OnProgress | None:
    """A callback for one of several parts of equal size of the work that `on_progress` follows."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(done + index * total, n_parts * total)


def insert_trigger(
    model: Model, passages: Sequence[list[int]], trigger: Trigger, placement: Placement
) -> tuple[list[list[int]], list[range]]:
    """Insert the trigger into each passage, truncated to its own length; returns passages and inserted spans.

    `sink:r` placements use the sinks that `model` has in the clean passage.

    Raises:
        PlacementError: the trigger does not fit a passage.
    """
    triggered = [
        place(
            passage,
            trigger,
            placement,
            model.tokenizer,
            sinks=locate_passage(model, passage) if placement.kind == "sink" else None,
            max_length=len(passage),
        )
        for passage in passages
    ]
    spans = [range(sequence.start, sequence.stop) for sequence in triggered]
    return [sequence.tokens for sequence in triggered], spans


def most_common_span(spans: Sequence[range]) -> tuple[int, int]:
    """The most frequent span, as start and stop."""
    return Counter((span.start, span.stop) for span in spans).most_common(1)[0][0]


def check_comparable(first: Model, second: Model) -> None:
    """Check that heads and tokens of two models correspond.

    Raises:
        ModelError: the models differ in vocabulary, layers or heads.
    """
    units = {"n_layers": "layers", "n_heads": "heads", "n_kv_heads": "key-value heads"}
    for name, unit in units.items():
        sizes = getattr(first, name), getattr(second, name)
        if sizes[0] != sizes[1]:
            raise ModelError(
                f"models {first.name!r} and {second.name!r} have {sizes[0]} and {sizes[1]} {unit}; "
                "compare models of one shape"
            )
    tokenizers = first.tokenizer, second.tokenizer
    if (
        tokenizers[0].get_vocab() != tokenizers[1].get_vocab()
        or tokenizers[0].bos_token_id != tokenizers[1].bos_token_id
    ):
        raise ModelError(
            f"models {first.name!r} and {second.name!r} have different vocabularies; "
            "compare models with the same tokenizer"
        )


def top1_by_position(
    model: Model,
    passages: Sequence[list[int]],
    *,
    batch_size: int = 8,
    max_logits: int = MAX_LOGITS,
    on_progress: OnProgress | None = None,
) -> Float[Tensor, " position"]:
    """Top-1 probability max_v p(v | tokens up to each position) in [0, 1], mean over passages.

    The mean is over the passages that have the position. Each batch is read in chunks of positions, with a
    key-value cache between them, so at most `max_logits` numbers of vocabulary × positions × batch are in
    memory. Softmax is in fp32.
    """
    length = max(map(len, passages))
    total = torch.zeros(length, dtype=torch.float64)
    count = torch.zeros(length, dtype=torch.float64)
    vocab_size = model.hf.config.get_text_config().vocab_size
    done = 0
    for batch in model.batches(passages, batch_size):
        n_rows, width = batch.ids.shape
        chunk_size = max(1, max_logits // (n_rows * vocab_size))
        cache = {}
        if width > chunk_size:
            cache = {_cache_parameter(model): DynamicCache(config=model.hf.config)}
        for start in range(0, width, chunk_size):
            stop = min(start + chunk_size, width)
            with torch.no_grad():
                output = model.hf(
                    input_ids=batch.ids[:, start:stop],
                    attention_mask=batch.mask[:, :stop].long(),
                    use_cache=bool(cache),
                    **cache,
                )
            logits = output.logits.float()
            top1 = (logits.amax(-1) - logits.logsumexp(-1)).exp()
            mask = batch.mask[:, start:stop]
            total[start:stop] += (top1 * mask).sum(0).double().cpu()
            count[start:stop] += mask.sum(0).cpu()
        done += n_rows
        if on_progress:
            on_progress(done, len(passages))
    return total / count


def _cache_parameter(model: Model) -> str:
    """The network's parameter for the key-value cache, which newer releases of transformers renamed."""
    return "cache" if "cache" in inspect.signature(model.hf.forward).parameters else "past_key_values"
