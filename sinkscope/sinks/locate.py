"""Locate attention sinks: which positions a model's heads attend to, over any passages.

`write_locate` writes the `SinkMap` that `locate` returns to a run directory, as `sinkscope locate` does.

Example:
    sinks = locate(model, passages)
    sinks.ranked().head()  # the strongest positions
    sinks.alpha.sel(position=0).max()  # the strongest head on the first token
    locate(model, passages, CaptureConfig(query_fraction=0.1))  # α from a tenth of the queries
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from sinkscope.errors import ModelError, TextError
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import create_or_load
from sinkscope.models.model import Model
from sinkscope.sinks.backends import BackendName, choose_backend
from sinkscope.sinks.capture import ALWAYS_SAMPLED, Backend, Sampling, Statistic
from sinkscope.sinks.experts import find_experts, measure_experts
from sinkscope.sinks.passages import check_passages, hash_passages
from sinkscope.sinks.sampling import SampledSinkStatistics
from sinkscope.sinks.sink_map import MIN_QUERIES, SinkMap, find_ranked, uniform_baseline
from sinkscope.sinks.sink_tokens import MassiveActivations, SinkTokens, token_kind
from sinkscope.sinks.statistics import (
    KEY_NORM,
    QUERY_STATISTICS,
    SCORES,
    BinnedPattern,
    BinnedScores,
    Head,
    KeyNorms,
    OfPassage,
    QueryStatistic,
    SinkStatistics,
    bin_size_for,
)
from sinkscope.text import token_texts

ENTROPY = "entropy"
EXPERTS = "experts"
EPSILON = 0.3
"""The threshold on α of Gu et al., ICLR 2025."""
MAX_FULL_MAP = 128
"""Maps are drawn with every position on passages of up to so many tokens."""

DrawLocate = Callable[[Path, xr.Dataset, xr.Dataset, xr.Dataset], None]
"""Draws the figures of `locate`: see `sinkscope.plots.sinks.draw_locate`."""


@dataclass(frozen=True)
class CaptureConfig:
    """How attention is captured and which statistics are computed.

    Args:
        epsilon: a position is a sink of a head on a passage if its α exceeds this.
        statistics: further statistics. Of each query: `entropy` of its attention in nats;
            `attention_distance`, how many tokens before it what it attends to stands, mean by attention;
            `learned_sink`, the attention to a sink that is a parameter (always measured if the model has
            one). Of each position: `key_norm`, ‖k‖₂ of the key that a query head reads (by `tiled`). Of a
            mixture of experts: `experts`, a table of `measure_experts` at the strongest position. With
            details, of one passage: `attention_scores` (by `tiled`; see `BinnedScores`).
        backend: `hooks` or `tiled`; by default the one that suits the model and the lengths (see
            `choose_backend`).
        query_fraction: read only this fraction of the queries, for an estimate of α with an interval (see
            `SampledSinkStatistics`). If the model does not support that, every query is read.
        seed: which queries are drawn.
        batch_size: passages per forward pass.
        passage: the number of the passage, from 0, that details measure by itself.

    Raises:
        TextError: a value is out of range, or a statistic is unknown or needs every query.
    """

    epsilon: float = EPSILON
    statistics: tuple[str, ...] = ()
    backend: BackendName | None = None
    query_fraction: float | None = None
    seed: int = 0
    batch_size: int = 8
    passage: int = 0

    def __post_init__(self) -> None:
        if self.query_fraction is not None and not 0 < self.query_fraction <= 1:
            raise TextError(
                f"`query_fraction` must be above 0 and at most 1, not {self.query_fraction:g}; a tenth is 0.1"
            )
        if not 0 <= self.seed < 2**32:
            raise TextError(f"`seed` {self.seed} is out of range; use 0 to {2**32 - 1}")
        if not 0 <= self.epsilon <= 1:
            raise TextError(f"`epsilon` {self.epsilon:g} is out of range; use a number from 0 to 1")
        of_queries = [name for name in self.statistics if name in QUERY_STATISTICS]
        if self.query_fraction is not None and of_queries:
            raise TextError(f"statistic {of_queries[0]!r} needs every query; leave out `query_fraction`")
        optional = (*QUERY_STATISTICS, KEY_NORM, SCORES, EXPERTS)
        if unknown := [name for name in self.statistics if name not in optional]:
            raise TextError(f"statistic {unknown[0]!r} is unknown; use {' or '.join(optional)}")
        if self.of_tiled and self.backend == "hooks":
            raise TextError(
                f"statistic {self.of_tiled[0]!r} is not read by `backend` hooks; leave out one of the two"
            )

    @property
    def of_tiled(self) -> list[str]:
        """The statistics that only the backend `tiled` reads."""
        return [name for name in self.statistics if name in (KEY_NORM, SCORES)]

    @property
    def sampling(self) -> Sampling | None:
        return None if self.query_fraction is None else Sampling(self.query_fraction, self.seed)


def locate(
    model: Model,
    passages: Sequence[list[int]],
    config: CaptureConfig | None = None,
    *,
    details: bool = False,
    accumulators: Sequence[Statistic] = (),
    on_progress: OnProgress | None = None,
) -> SinkMap:
    """Measure the sinks of a model over `passages` (token ids, BOS first, no padding; lengths may differ).

    α_k is the mean attention that position k receives from the queries at or after it; the sink rate is the
    share of passages with α_k > epsilon, thresholded per passage (Gu et al., ICLR 2025). The value norm is
    that of the key-value head that the query head reads.

    Args:
        details: also measure sink tokens, massive activations, and one passage by itself.
        accumulators: further statistics to update in the same pass.

    Raises:
        TextError: no passage, one with fewer than two tokens or with padding, or other values.
        ModelError: the model's attention cannot be captured, or not by the backend of the configuration.
    """
    config = config or CaptureConfig()
    passages = check_passages(model, passages)
    if SCORES in config.statistics and not details:
        raise TextError(f"statistic {SCORES!r} is one of the details; set `details`, or leave it out")
    if EXPERTS in config.statistics:
        find_experts(model)  # for its error, before anything is measured
    name = "tiled" if config.of_tiled else config.backend
    backend = choose_backend(model, passages, name, config.sampling)
    if details:
        sinks = _locate_with_details(model, passages, config, backend, accumulators, on_progress)
    else:
        sinks = SinkMap(_measure(model, passages, config, backend, accumulators, on_progress))
    if EXPERTS in config.statistics:
        strongest = sinks.strongest(1)
        sinks.tables[EXPERTS] = measure_experts(model, passages, strongest, config.batch_size)
    return sinks


def locate_passage(model: Model, tokens: list[int]) -> SinkMap:
    """The sinks of one passage, as `sink:r` placements need them."""
    return locate(model, [tokens])


def write_locate(
    directory: Path,
    model: Model,
    passages: Sequence[list[int]],
    config: CaptureConfig,
    *,
    heads: Sequence[Head] = (),
    draw: DrawLocate | None = None,
    on_progress: OnProgress | None = None,
) -> SinkMap:  # the arguments of `locate`, and what is drawn
    """Locate sinks with details and write them to a run directory, or load a complete run of the same inputs.

    Args:
        heads: whose attention maps are drawn; by default those of the head with the strongest sink and of the
            head with the greatest entropy.
        draw: draws figures into `directory/figures`.

    Raises:
        ModelError: the model has no such head; else as `locate`.
        OutputError: the directory cannot be used.
    """
    heads = list(dict.fromkeys(heads))
    for layer, head in heads:
        if layer >= model.n_layers or head >= model.n_heads:
            raise ModelError(
                f"`heads` {layer}:{head} does not exist: model {model.name!r} has layers 0 to "
                f"{model.n_layers - 1} with heads 0 to {model.n_heads - 1}; choose among these"
            )
        model.check_layer(layer, "heads")

    def build(staging: Path) -> None:
        sinks = locate(model, passages, config, details=True, on_progress=on_progress)
        sinks.save(staging)
        if draw is not None:
            draw(staging / "figures", *_figure_data(model, passages[config.passage], sinks, heads))

    inputs = asdict(config) | {
        "model": model.fingerprint(),
        "passages": hash_passages(passages),
        "statistics": sorted(config.statistics),
        "heads": heads,
        "label": model.label,
    }
    del inputs["batch_size"]
    metadata = {"model": model.name, "passages": len(passages), "epsilon": config.epsilon}
    return create_or_load(directory, "locate", inputs, build, SinkMap.read, metadata=metadata)


def head_maps(
    model: Model,
    tokens: list[int],
    heads: Sequence[Head],
    bin_size: int = 1,
    backend: BackendName | None = None,
) -> dict[Head, Float[np.ndarray, "query_bin key_bin"]]:
    """Attention maps of some heads on one passage, in bins of `bin_size` positions (see `BinnedPattern`)."""
    maps = BinnedPattern(heads, len(tokens), bin_size)
    choose_backend(model, [tokens], backend).capture(model, [tokens], [maps])
    return dict(zip(heads, maps.result()["pattern"].numpy(), strict=True))


def attention_scores(
    model: Model, tokens: list[int], heads: Sequence[Head], bin_size: int = 1
) -> dict[Head, Float[np.ndarray, "query_bin key_bin"]]:
    """Attention scores before the softmax of some heads on one passage, in bins (see `BinnedScores`)."""
    maps = BinnedScores(heads, len(tokens), bin_size)
    choose_backend(model, [tokens], "tiled").capture(model, [tokens], [maps])
    return dict(zip(heads, maps.result()[SCORES].numpy(), strict=True))


def parse_head(text: str) -> Head:
    """Parse `3:5` as layer 3, head 5.

    Raises:
        ModelError: it is not of that form.
    """
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text.strip())
    if not match:
        raise ModelError(f"`heads` {text!r} is not layer:head; write it like 3:5")
    return int(match[1]), int(match[2])


def _measure(
    model: Model,
    passages: Sequence[list[int]],
    config: CaptureConfig,
    backend: Backend,
    accumulators: Sequence[Statistic],
    on_progress: OnProgress | None = None,
) -> xr.Dataset:
    """The data of a `SinkMap`, in one pass over the passages."""
    length = max(map(len, passages))
    shape = (model.n_layers, model.n_heads, length)
    sampling = backend.sampling
    sinks = SampledSinkStatistics(*shape, sampling) if sampling else SinkStatistics(*shape, config.epsilon)
    names = [*config.statistics, *(["learned_sink"] if model.has_learned_sinks else [])]
    keys = [KeyNorms(shape)] if KEY_NORM in names else []
    of_queries = [QueryStatistic(name, shape) for name in dict.fromkeys(names) if name in QUERY_STATISTICS]
    measured = [sinks, *of_queries, *keys]
    statistics = [*measured, *accumulators]
    visible = backend.capture(
        model, passages, statistics, batch_size=config.batch_size, on_progress=on_progress
    )
    results = dict(chain.from_iterable(statistic.result().items() for statistic in measured))
    attrs = {
        "model": model.label,
        "passages": len(passages),
        "epsilon": config.epsilon,
        "max_length": length,
        "backend": str(backend),
        "bos": model.begins_with,
    }
    if sampling:
        attrs |= {"query_fraction": sampling.fraction, "seed": sampling.seed}
    dims = ("layer", "head", "position")
    data = xr.Dataset(
        {name: (dims, values.numpy()) for name, values in results.items()},
        coords={dim: np.arange(size) for dim, size in zip(dims, shape, strict=True)},
        attrs=attrs,
    )
    n_positions = sampling.n_estimated if sampling else int
    baseline = uniform_baseline(map(len, passages), visible, model.n_layers, n_positions)
    data["uniform"] = (("layer", "position"), baseline)
    data["passages"] = ("position", sinks.count.numpy().astype("int64"))
    shorter = np.bincount([*map(len, passages)], minlength=length + 1).cumsum()[:length]
    data["ranked"] = ("position", find_ranked(len(passages) - shorter))
    _check_numbers(model, data)
    return data


def _check_numbers(model: Model, data: xr.Dataset) -> None:
    """Raise ModelError for NaN or infinity at a position that passages have, as after overflow in fp16."""
    layers = model.attention_layers
    for name in ("value_norm", *(() if "query_fraction" in data.attrs else ("alpha",))):
        values = data[name].isel(layer=layers).where(data["passages"] > 0, 0.0)
        values = values.max(["head", "position"], skipna=False)
        if not np.isfinite(values).all():
            layer = layers[int(np.flatnonzero(~np.isfinite(values))[0])]
            raise ModelError(
                f"model {model.name!r} gives infinity or NaN in layer {layer}; check its weights, or load it "
                "in float32"
            )


def _locate_with_details(
    model: Model,
    passages: Sequence[list[int]],
    config: CaptureConfig,
    backend: Backend,
    accumulators: Sequence[Statistic],
    on_progress: OnProgress | None,
) -> SinkMap:
    if not 0 <= config.passage < len(passages):
        raise TextError(
            f"`passage` {config.passage} does not exist: there are {len(passages)}, numbered from 0; use a "
            "smaller number"
        )
    first = passages[config.passage]
    shape = (model.n_layers, model.n_heads, len(first))
    heads = list(product(range(model.n_layers), range(model.n_heads)))
    maps = BinnedPattern(heads, len(first), bin_size_for(len(heads), len(first)))
    own, entropy = SinkStatistics(*shape, config.epsilon), QueryStatistic(ENTROPY, shape)
    of_first: list[SinkStatistics | QueryStatistic | BinnedPattern | BinnedScores] = [own, entropy, maps]
    if SCORES in config.statistics:
        of_first.append(BinnedScores(heads, len(first), maps.bin_size))
    massive = MassiveActivations(model.n_layers)
    tokens = SinkTokens(passages, _token_kinds(model, passages), model.n_heads, config.epsilon)
    every_query = backend.sampling is None
    details: list[Statistic] = [massive, OfPassage(config.passage, of_first)]
    if every_query:
        details.append(tokens)
    data = _measure(model, passages, config, backend, [*details, *accumulators], on_progress)
    tables = {"massive_activations": massive.table()}
    if every_query:
        sink_tokens = tokens.sinks()
        sink_tokens.insert(2, "text", [model.tokenizer.decode([token]) for token in sink_tokens["token"]])
        tables |= {"sink_tokens": sink_tokens, "token_kinds": tokens.kinds()}
    texts = {"position": range(len(first)), "token": first, "text": token_texts(model, first)}
    tables["passage"] = pd.DataFrame(texts)
    results = dict(chain.from_iterable(statistic.result().items() for statistic in of_first))
    dims = ("layer", "head", "position")
    passage = xr.Dataset(
        {name: (dims, results[name].numpy()) for name in ("alpha", "value_norm", ENTROPY)},
        coords={dim: np.arange(size) for dim, size in zip(dims, shape, strict=True)},
        attrs={"bin": maps.bin_size, "passage": config.passage},
    )
    for name in ("pattern", SCORES):
        if name in results:
            by_head = results[name].float().unflatten(0, shape[:2]).numpy()
            passage[name] = (("layer", "head", "query", "key"), by_head)
    return SinkMap(data, tables, passage)


def _token_kinds(model: Model, passages: Sequence[list[int]]) -> dict[int, str]:
    """The kind of every token that occurs."""
    tokenizer = model.tokenizer
    ids = sorted(set(chain.from_iterable(passages)))
    names = zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
    return {token: token_kind(name, tokenizer.decode([token])) for token, name in names}


def _figure_data(
    model: Model, passage: list[int], sinks: SinkMap, heads: Sequence[Head]
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """What `draw_locate` draws: all passages, one passage, and maps of `heads` or of two that are chosen."""
    assert sinks.passage is not None
    chosen = heads or list(dict.fromkeys((sinks.strongest_head(), sinks.head_of_greatest_entropy())))
    bin_size = sinks.passage.attrs["bin"]
    names = [name for name in ("pattern", SCORES) if name in sinks.passage]
    if bin_size == 1 or len(passage) > MAX_FULL_MAP:
        own = sinks.passage
        found = {name: [own[name].sel(layer=at, head=head).values for at, head in chosen] for name in names}
    else:
        bin_size = 1
        backend: BackendName = "hooks" if sinks.data.attrs["backend"].startswith("hooks") else "tiled"
        found = {"pattern": [*head_maps(model, passage, chosen, backend=backend).values()]}
        if SCORES in names:
            found[SCORES] = [*attention_scores(model, passage, chosen).values()]
    map_data = xr.Dataset(
        {name: (("map", "query", "key"), np.stack(maps)) for name, maps in found.items()},
        coords={
            "layer": ("map", [layer for layer, _ in chosen]),
            "head": ("map", [head for _, head in chosen]),
        },
        attrs={"bin": bin_size, "selected": bool(heads)},
    )
    attrs = {"strongest": sinks.strongest(1), "always_sampled": ALWAYS_SAMPLED}
    texts = sinks.passage.assign_coords(text=("position", sinks.tables["passage"]["text"].to_numpy()))
    n_shaded = max(0, len(passage) - MIN_QUERIES + 1)
    return sinks.data.assign_attrs(attrs), texts.assign_attrs(n_shaded=n_shaded), map_data
