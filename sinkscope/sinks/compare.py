"""Two models on one text, or one model on two texts: what differs in attention, value norms and confidence. Every difference is second − first.

Columns of the tables, of `compare` and of the captures of a study (which have `placement` too):

- `attention`: layer, head, position, alpha_first, alpha_second, difference, value_norm_first, value_norm_second, uniform, passages
- `maps`: layer, head (null: mean over heads), query, key, difference, trigger_start, trigger_stop, passages
- `span_mass`: layer, head, span_mass_first, span_mass_second, difference, passages
- `top1`: condition, position, probability, passages
- `value_norm_correlation`: layer, position, correlation, pairs (of numbers)
- `passage`: condition, position, text

`condition` is `A` or `B` (two models), or `clean` or `triggered` (one model); `first` is the former of the two. `patterns.nc`: `pattern` over ([placement,]
condition, layer, head, query, key), in bins of the attribute `bin`. `norms.nc`: `value_norm` over (condition, passage, layer, kv_head, position); in
captures condition is `clean`, each placement or `retain`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.sinks.backends import Backend, choose_backend
from sinkscope.sinks.blocks import AttentionBlock
from sinkscope.sinks.locate import SinkMap, locate, locate_passage
from sinkscope.sinks.maps import BinnedPattern
from sinkscope.sinks.next_token import top1_by_position
from sinkscope.sinks.statistics import Block, FirstValueNorms, SpanMass, Statistic
from sinkscope.triggers import Placement, Trigger, place

MAP_COLUMNS = ("layer", "head", "query", "key", "difference", "trigger_start", "trigger_stop", "passages")
FIRST_POSITIONS = 16  # where value norms are compared
CONSTANT = 1e-5  # a spread below this share of the mean is rounding


@dataclass(frozen=True)
class Condition:
    """A model and the passages (token ids, BOS first) that it reads; `label` names the two in tables and pictures.

    `spans`: where the trigger stands in each passage, or would stand, if one plays a part.
    """

    label: str
    model: Model
    passages: list[list[int]]
    spans: list[range] | None = None


@dataclass(frozen=True)
class ConditionStats:
    """What one condition shows: its sinks, the mean maps of one layer's heads, value norms at the first positions per passage, mean top-1 probability, and
    the attention of queries behind the trigger's span to it (see `SpanMass`)."""

    sinks: SinkMap
    pattern: Float[np.ndarray, "head bin bin"]
    norms: Float[np.ndarray, "passage layer kv_head position"]
    top1: Float[np.ndarray, " position"]
    span_mass: Float[np.ndarray, "layer head"] | None


class FullLengthPattern(BinnedPattern):
    """Maps of all heads of some layers, over passages of the full length only."""

    @classmethod
    def of(cls, model: Model, passages: Sequence[list[int]], layers: Iterable[int], bin_size: int) -> Self:
        return cls(
            [(layer, head) for layer in layers for head in range(model.n_heads)],
            max(map(len, passages)),
            bin_size,
        )

    def update(self, block: Block) -> None:
        _, length, _ = self._arguments
        if isinstance(block, AttentionBlock) and block.length == length:
            super().update(block)


def insert_trigger_in_all(
    model: Model, passages: Sequence[list[int]], trigger: Trigger, placement: Placement
) -> tuple[list[list[int]], list[range]]:
    """The passages with the trigger in each, cut back at the end to their own length; and where it stands in each.

    `sink:r` placements count in the sinks that `model` has in the clean passage.

    Raises:
        PlacementError: the trigger does not fit a passage.
    """
    placed = []
    for passage in passages:
        sinks = locate_passage(model, passage) if placement.kind == "sink" else None
        placed.append(
            place(passage, trigger, placement, model.tokenizer, sinks=sinks, max_length=len(passage))
        )
    return [each.tokens for each in placed], [range(each.start, each.stop) for each in placed]


def most_common_span(spans: Sequence[range]) -> tuple[int, int]:
    """The most frequent span."""
    return Counter((span.start, span.stop) for span in spans).most_common(1)[0][0]


def check_comparable(first: Model, second: Model) -> None:
    """Whether heads and tokens of two models stand for each other.

    Raises:
        ModelError: they differ in vocabulary, layers or heads.
    """
    for what in ("n_layers", "n_heads", "n_kv_heads"):
        mine, theirs = getattr(first, what), getattr(second, what)
        if mine != theirs:
            unit = {"n_layers": "layers", "n_heads": "heads", "n_kv_heads": "key-value heads"}[what]
            raise ModelError(
                f"models {first.name!r} and {second.name!r} have {mine} and {theirs} {unit}; compare models of one shape"
            )
    one, other = first.tokenizer, second.tokenizer
    if one.get_vocab() != other.get_vocab() or one.bos_token_id != other.bos_token_id:
        raise ModelError(
            f"models {first.name!r} and {second.name!r} have different vocabularies; compare models of one tokenizer"
        )


def measure(
    condition: Condition,
    *,
    layer: int,
    bin_size: int,
    source: Backend | None = None,
    batch_size: int = 8,
    statistics: Sequence[Statistic] = (),
    on_progress: OnProgress | None = None,
) -> ConditionStats:
    """One pass for attention and values, which feeds `statistics` too, one for the next token. The map is of `layer`, over the longest passages only."""
    model, passages = condition.model, condition.passages
    pattern = FullLengthPattern.of(model, passages, [layer], bin_size)
    norms = FirstValueNorms(model.n_layers, min(FIRST_POSITIONS, *map(len, passages)))
    both = (
        None
        if on_progress is None
        else (
            lambda done, total: on_progress(done, 2 * total),
            lambda done, total: on_progress(done + total, 2 * total),
        )
    )
    attending, guessing = both or (None, None)
    mass = SpanMass(model.n_layers, model.n_heads, condition.spans) if condition.spans else None
    own: list[Statistic] = [pattern, norms, *([mass] if mass else [])]
    sinks = locate(
        model,
        passages,
        statistics=[*own, *statistics],
        source=source,
        batch_size=batch_size,
        on_progress=attending,
    )
    top1 = top1_by_position(model, passages, batch_size=batch_size, on_progress=guessing)
    on_span = mass.result()["span_mass"].numpy() if mass else None
    return ConditionStats(
        sinks,
        pattern.result()["pattern"].numpy(),
        norms.result()["value_norm"].numpy(),
        top1.numpy(),
        on_span,
    )


def difference_map(
    first: Condition, second: Condition, *, layer: int = -1, bin_size: int = 4
) -> Float[np.ndarray, "head bin bin"]:
    """Attention of one layer's heads, second − first, mean over the longest passages, in bins of positions (see `change`)."""
    patterns = []
    for condition in (first, second):
        layer %= condition.model.n_layers
        pattern = FullLengthPattern.of(condition.model, condition.passages, [layer], bin_size)
        choose_backend(condition.model, condition.passages).capture(
            condition.model, condition.passages, [pattern], layers=[layer], batch_size=32
        )
        patterns.append(pattern.result()["pattern"].numpy())
    return attention_difference(*patterns)


def attention_difference(
    first: Float[np.ndarray, "head bin bin"], second: Float[np.ndarray, "head bin bin"]
) -> Float[np.ndarray, "head bin bin"]:
    """second − first: attention into a bin of keys, mean over a bin of queries. Bins above the diagonal are NaN."""
    return np.where(np.tril(np.ones(first.shape[1:], dtype=bool)), second - first, np.nan)


def heads_data(
    patterns: Sequence[Float[np.ndarray, "head query key"]],
    n_heads: int,
    bin_size: int,
    labels: Sequence[str],
) -> xr.Dataset:
    """Maps over condition, layer, head, query and key, from those of all heads in each condition."""
    whole = np.array(patterns, dtype=np.float32)
    return xr.Dataset(
        {
            "pattern": (
                ("condition", "layer", "head", "query", "key"),
                whole.reshape(len(whole), -1, n_heads, *whole.shape[2:]),
            )
        },
        coords={"condition": list(labels)},
        attrs={"bin": bin_size},
    )


def map_frame(
    values: Float[np.ndarray, "bin bin"], bin_size: int, span: tuple[int, int] | None
) -> pd.DataFrame:
    """One row per cell: query, key (first positions of the bins), difference, trigger_start, trigger_stop (null without a trigger)."""
    rows, keys = np.tril_indices(len(values))
    start, stop = span or (pd.NA, pd.NA)
    frame = pd.DataFrame(
        {
            "query": rows * bin_size,
            "key": keys * bin_size,
            "difference": values[rows, keys],
            "trigger_start": start,
            "trigger_stop": stop,
        }
    )
    return frame.astype({"trigger_start": "Int64", "trigger_stop": "Int64"})


def attention_frame(first: SinkMap, second: SinkMap) -> pd.DataFrame:
    """One row per (layer, head, position): layer, head, position, alpha_first, alpha_second, their difference, value_norm_first, value_norm_second, uniform (α
    under uniform attention), passages (how many reach the position)."""
    frame = (
        first.data[["alpha", "uniform", "passages"]]
        .to_dataframe(dim_order=["layer", "head", "position"])
        .reset_index()
    )
    frame = frame.rename(columns={"alpha": "alpha_first"})
    frame["alpha_second"] = second.alpha.values.reshape(-1)
    frame["difference"] = frame["alpha_second"] - frame["alpha_first"]
    frame["value_norm_first"], frame["value_norm_second"] = (
        sinks.data["value_norm"].values.reshape(-1) for sinks in (first, second)
    )
    columns = [
        "alpha_first",
        "alpha_second",
        "difference",
        "value_norm_first",
        "value_norm_second",
        "uniform",
        "passages",
    ]
    return frame[["layer", "head", "position", *columns]]


def correlation(
    first: Float[np.ndarray, "passage layer kv_head position"],
    second: Float[np.ndarray, "passage layer kv_head position"],
) -> Float[np.ndarray, "layer position"]:
    """Pearson's r of value norms, by layer and position, over passages with key-value heads pooled.

    NaN where either side is constant but for rounding. BOS sees only itself: at position 0 every passage gives the same numbers, one per head.
    """
    x, y = (
        norms.astype(np.float64).transpose(1, 3, 0, 2).reshape(norms.shape[1], norms.shape[3], -1)
        for norms in (first, second)
    )
    constant = (x.std(-1) <= CONSTANT * x.mean(-1)) | (y.std(-1) <= CONSTANT * y.mean(-1))
    x, y = (values - values.mean(-1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.where(constant, np.nan, r)
