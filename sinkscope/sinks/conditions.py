"""Conditions that are compared: a model and the passages it reads, with or without a trigger."""

from __future__ import annotations

import inspect
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from sinkscope.errors import ModelError, PlacementError, TextError
from sinkscope.io.progress import OnProgress, shift_progress
from sinkscope.models.chat import Body
from sinkscope.models.model import Model
from sinkscope.sinks.capture import Statistic
from sinkscope.sinks.locate import CaptureConfig, locate, locate_passage
from sinkscope.sinks.statistics import BinnedPattern, FirstValueNorms, SpanMass, bin_size_for
from sinkscope.text import check_max_length, token_texts
from sinkscope.triggers import Placement, Trigger, place, warn_if_prefix

LOGGER = logging.getLogger("sinkscope")
CLEAN = "clean"
TRIGGERED = "triggered"
FIRST_POSITIONS = 16
"""Value norms are kept per passage at this many positions."""
MAX_LOGITS = 1 << 26
"""Numbers in one chunk of logits: a quarter of a gigabyte in fp32."""


@dataclass(frozen=True)
class Condition:
    """A model and the passages (token ids, BOS first) that it reads.

    Attributes:
        label: the condition's name in tables and figures.
        spans: where the trigger is in each passage, or would be in the triggered one; None without a trigger.
    """

    label: str
    model: Model
    passages: Sequence[list[int]]
    spans: list[range] | None = None


@dataclass(frozen=True)
class ConditionPair:
    """Two conditions, and a description of what differs between them."""

    first: Condition
    second: Condition
    description: str = ""


def pair_conditions(
    model: Model,
    other: Model | None,
    passages: Sequence[list[int]],
    max_length: int,
    trigger: tuple[Trigger, Placement] | None,
    bodies: Sequence[Body] | None = None,
) -> ConditionPair:
    """Two models on one text, with the trigger if one is given, or one model on clean and triggered text.

    Passages that are too short for the trigger or its placement are left out, with a warning.

    Args:
        bodies: of chats, where the user's turn is in each.

    Raises:
        ModelError: neither a second model nor a trigger, or models whose heads or tokens do not correspond.
        TextError: no passage has `max_length` tokens, or the second model cannot read so many.
        PlacementError: the trigger fits no passage.
    """
    if other is None and trigger is None:
        raise ModelError(
            f"model {model.name!r} has nothing to be compared with; give a second model or a `trigger`"
        )
    longest = max(map(len, passages))
    if longest < max_length:
        raise TextError(
            f"no passage has `max_length` {max_length} tokens, which maps need; the longest has {longest}: "
            "lower it to that or give more text"
        )
    if other is not None:
        check_comparable(model, other)
        check_max_length(other, max_length)
    triggered, spans = passages, None
    if trigger:
        passages, triggered, spans = _insert_where_it_fits(model, passages, *trigger, bodies)
    names = [Path(each.name).name or each.name for each in (model, other) if each is not None]
    trigger_text = f"trigger “{trigger[0].text}” as {trigger[1]}" if trigger else ""
    if other is None:
        return ConditionPair(
            Condition(CLEAN, model, passages, spans),
            Condition(TRIGGERED, model, triggered, spans),
            f"{names[0]}, {trigger_text}",
        )
    description = "A = {}, B = {}".format(*names)
    return ConditionPair(
        Condition("A", model, triggered, spans),
        Condition("B", other, triggered, spans),
        f"{description}, both with {trigger_text}" if trigger else description,
    )


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
    if first.attention_layers != second.attention_layers:
        raise ModelError(
            f"models {first.name!r} and {second.name!r} attend in other layers; compare models of one shape"
        )
    vocabularies = [(each.tokenizer.get_vocab(), each.bos_id) for each in (first, second)]
    if vocabularies[0] != vocabularies[1]:
        raise ModelError(
            f"models {first.name!r} and {second.name!r} have different vocabularies, or "
            "one begins with BOS; compare models with the same tokenizer"
        )


def insert_trigger(
    model: Model,
    passages: Sequence[list[int]],
    trigger: Trigger,
    placement: Placement,
    bodies: Sequence[Body] | None = None,
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
            body=body,
            sinks=locate_passage(model, passage) if placement.kind == "sink" else None,
            max_length=len(passage),
        )
        for passage, body in zip(passages, bodies or itertools.repeat(None), strict=bodies is not None)
    ]
    spans = [range(sequence.start, sequence.stop) for sequence in triggered]
    return [sequence.tokens for sequence in triggered], spans


def _insert_where_it_fits(
    model: Model,
    passages: Sequence[list[int]],
    trigger: Trigger,
    placement: Placement,
    bodies: Sequence[Body] | None,
) -> tuple[list[list[int]], list[list[int]], list[range]]:
    """The passages in which the trigger fits, and what `insert_trigger` makes of them; logs how many it does
    not fit in.

    Raises:
        PlacementError: it fits in none; the error is that of a longest one.
    """
    fitting, triggered, spans = [], [], []
    errors: dict[int, PlacementError] = {}
    for index, passage in enumerate(passages):
        try:
            body = [bodies[index]] if bodies else None
            inserted = insert_trigger(model, [passage], trigger, placement, body)
        except PlacementError as error:
            errors[len(passage)] = error
        else:
            fitting.append(passage)
            triggered += inserted[0]
            spans += inserted[1]
    if not fitting:
        raise errors[max(errors)]
    warn_if_prefix(placement, (span.start for span in spans), model.tokenizer)
    if n_short := len(passages) - len(fitting):
        LOGGER.warning(
            "%d of %d passages are too short for the trigger as %s and are left out",
            *(n_short, len(passages), placement),
        )
    return fitting, triggered, spans


def most_common_span(spans: Sequence[range]) -> range:
    return Counter(spans).most_common(1)[0][0]


def measure(
    condition: Condition,
    config: CaptureConfig,
    *,
    layer: int,
    bin_size: int,
    on_progress: OnProgress | None = None,
) -> xr.Dataset:
    """The variables of a `Comparison` for one condition: a pass for attention, and one for the next token.

    `layer` and `bin_size` are those of `layer_map`.
    """
    model, passages, spans = condition.model, condition.passages, condition.spans
    length = max(map(len, passages))
    heads = list(product(range(model.n_layers), range(model.n_heads)))
    layer_heads = [head for head in heads if head[0] == layer]
    layer_map = BinnedPattern(layer_heads, length, bin_size, full_length_only=True)
    pattern = BinnedPattern(heads, length, bin_size_for(len(heads), length), full_length_only=True)
    norms = FirstValueNorms(model.n_layers, min(FIRST_POSITIONS, *map(len, passages)))
    span_mass = None if spans is None else SpanMass(model.n_layers, model.n_heads, spans)
    accumulators: list[Statistic] = [layer_map, norms, pattern, *([span_mass] if span_mass else [])]
    n = len(passages)
    progress = [shift_progress(on_progress, done, 2 * n) for done in (0, n)]
    sinks = locate(model, passages, config, accumulators=accumulators, on_progress=progress[0]).data
    top1 = top1_by_position(model, passages, config.batch_size, progress[1])
    maps = pattern.result()["pattern"].float().unflatten(0, (model.n_layers, model.n_heads))
    texts = np.full(length, None)
    typical = token_texts(model, passages[_typical_passage(condition, length)])
    texts[: len(typical)] = typical
    data = sinks[["alpha", "value_norm", "uniform", "passages", "ranked"]].drop_vars(["head", "position"])
    data = data.assign(
        top1=("position", top1.numpy()),
        pattern=(("layer", "head", "query", "key"), maps.numpy()),
        layer_map=(("head", "map_query", "map_key"), layer_map.result()["pattern"].numpy()),
        first_value_norm=(
            ("passage", "layer", "kv_head", "first_position"),
            norms.result()["value_norm"].numpy(),
        ),
        text=("position", texts),
    )
    if span_mass:
        data["span_mass"] = (("layer", "head"), span_mass.result()["span_mass"].numpy())
    return data


def _typical_passage(condition: Condition, length: int) -> int:
    """The first passage of this length, if possible with the most common span."""
    full_length = [i for i, passage in enumerate(condition.passages) if len(passage) == length]
    if not condition.spans:
        return full_length[0]
    span = most_common_span(condition.spans)
    return next((i for i in full_length if condition.spans[i] == span), full_length[0])


def top1_by_position(
    model: Model, passages: Sequence[list[int]], batch_size: int = 8, on_progress: OnProgress | None = None
) -> Float[Tensor, " position"]:
    """Top-1 probability max_v p(v | tokens up to each position) in [0, 1], mean over passages.

    The mean is over the passages that have the position. Each batch is read in chunks of positions, with a
    key-value cache between them, so at most `MAX_LOGITS` numbers of vocabulary × positions × batch are in
    memory. Softmax is in fp32.
    """
    length = max(map(len, passages))
    total = torch.zeros(length, dtype=torch.float64)
    count = torch.zeros(length, dtype=torch.float64)
    vocab_size = model.hf.config.get_text_config().vocab_size
    done = 0
    for batch in model.batches(passages, batch_size):
        n_rows, width = batch.ids.shape
        chunk_size = max(1, MAX_LOGITS // (n_rows * vocab_size))
        cache = {}
        if width > chunk_size:
            cache = {_cache_parameter(model): DynamicCache(config=model.hf.config)}
        for start in range(0, width, chunk_size):
            stop = min(start + chunk_size, width)
            with torch.no_grad(), model.eval_mode():
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
