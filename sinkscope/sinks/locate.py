"""Locate attention sinks: where a model's heads put their attention, over any passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from sinkscope.errors import PlacementError, TextError
from sinkscope.io.progress import OnProgress
from sinkscope.io.tables import load_netcdf, write_netcdf
from sinkscope.models.model import Model
from sinkscope.sinks.backends import Backend, choose_backend
from sinkscope.sinks.sampling import SampledMass, Sampling
from sinkscope.sinks.sink_tokens import MIN_QUERIES
from sinkscope.sinks.statistics import QUERY_STATISTICS, SinkStatistics, Statistic
from sinkscope.token_sequences import TokenSequences

EPSILON = 0.3  # the threshold of Gu et al., ICLR 2025


def uniform(length: int, window: int | None = None) -> Float[np.ndarray, " position"]:
    """α of each position of a passage under uniform causal attention, of queries that see `window` keys at most."""
    widest = window or length
    starts = np.arange(length)
    shares = np.concatenate([[0], np.cumsum(1 / np.minimum(starts + 1, widest))])
    return (shares[np.minimum(length, starts + widest)] - shares[starts]) / (length - starts)


def _baseline(
    lengths: Iterable[int], windows: Sequence[int | None], reach: Callable[[int], int]
) -> Float[np.ndarray, "layer position"]:
    """α under uniform attention, mean over passages of these lengths, each of which counts at its first `reach(length)` positions."""
    counts = Counter(lengths)
    total, n = np.zeros((len(windows), max(counts))), np.zeros(max(counts))
    for length, count in counts.items():
        reached = reach(length)
        n[:reached] += count
        of_window = {window: count * uniform(length, window)[:reached] for window in set(windows)}
        total[:, :reached] += [of_window[window] for window in windows]
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


@dataclass(frozen=True)
class SinkMap:
    """Sink statistics over layer, head and position.

    Attributes:
        data: `alpha`, `sink_rate`, `value_norm`, `weighted_norm` with dims (layer, head, position); `uniform` (layer, position), the α that uniform
            attention has over the same passages, within the layer's window if it has one; and `passages` (position): how many passages reach it. Where
            rows were sampled, `alpha_low` and `alpha_high` (a 95 % interval) stand in the place of `sink_rate`, `passages` counts those with enough queries
            left behind the position, over which α is a mean there, and α is NaN where there are none. Attributes: `model`, `passages`, `epsilon`,
            `max_length`, `source`; `rows` and `seed` of a sample.
    """

    data: xr.Dataset

    @property
    def alpha(self) -> Float[xr.DataArray, "layer head position"]:
        return self.data["alpha"]

    def uniform(self) -> Float[np.ndarray, " position"]:
        """α of each position under uniform causal attention, mean over layers: the baseline a sink has to beat."""
        return self.data["uniform"].mean("layer").values

    def ranked(self) -> pd.DataFrame:
        """Positions by α, mean over layers and heads, strongest first; columns rank, position, alpha, sink_rate (not of a sample), uniform.

        The last positions are left out: α there is a mean over fewer than eight queries, mostly of a token's attention to itself.
        """
        columns = [name for name in ("alpha", "sink_rate") if name in self.data]
        means = self.data[columns].mean(["layer", "head"], skipna=False).to_dataframe()[columns]
        means["uniform"] = self.uniform()
        last = max(1, len(means) - MIN_QUERIES + 1)
        ranked = means.iloc[:last].dropna().sort_values("alpha", ascending=False, kind="stable").reset_index()
        ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
        return ranked

    def strongest(self, rank: int) -> int:
        """The position of the `rank`-th strongest sink; ranks count from 1.

        Raises:
            PlacementError: there are fewer positions than that.
        """
        ranked = self.ranked()
        if not 1 <= rank <= len(ranked):
            raise PlacementError(
                f"sink rank {rank} does not exist in a passage with {len(ranked)} ranked positions; use a smaller rank"
            )
        return int(ranked["position"].iloc[rank - 1])

    def heads_above(self, threshold: float, position: int = 0) -> float:
        """Share of heads whose α at `position` exceeds `threshold`."""
        return float((self.alpha.sel(position=position) > threshold).mean())

    def to_frame(self) -> pd.DataFrame:
        """One row per (layer, head, position): layer, head, position, alpha, sink_rate, value_norm, weighted_norm, then what else was measured, uniform.

        Of a sample: alpha, alpha_low, alpha_high, value_norm, weighted_norm, uniform.
        """
        return (
            self.data.drop_vars("passages")
            .to_dataframe(dim_order=["layer", "head", "position"])
            .reset_index()
        )

    def save(self, directory: Path) -> None:
        """Write `sinks.nc` (HDF5) and `sinks.parquet`."""
        write_netcdf({"/": self.data}, directory / "sinks.nc")
        self.to_frame().to_parquet(directory / "sinks.parquet", index=False)

    @classmethod
    def read(cls, directory: Path) -> SinkMap:
        return cls(load_netcdf(directory / "sinks.nc"))


def locate(
    model: Model,
    passages: Sequence[list[int]],
    *,
    epsilon: float = EPSILON,
    also: Sequence[str] = (),
    statistics: Sequence[Statistic] = (),
    source: Backend | None = None,
    rows: float | None = None,
    seed: int = 0,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> SinkMap:
    """Measure sinks over `passages` (token ids, BOS first; lengths may differ).

    α_k is the mean attention that position k receives from the queries at or after it; the sink rate is the share of passages with
    α_k > `epsilon`, thresholded per passage (Gu et al., ICLR 2025). The value norm is that of the key-value head which the query head reads.

    Args:
        also: more to measure of each query: `entropy` of its attention in nats, `learned_sink`, the mass it gives to a sink that is a
            parameter (measured without being asked for where the model has one).
        statistics: others to feed on the way.
        source: `lens` (TransformerLens hooks) or `stream` (tiles); by default the one that suits the model and the lengths.
        rows: look at this share of the queries only, drawn by `seed`, for an estimate of α with an interval (see `SampledMass`). A model whose
            output sdpa cannot make is measured in full all the same, and `source` says so.

    Raises:
        TextError: no passage, or one with fewer than two tokens; an unknown statistic, or one that a sample of rows cannot give; a share of rows that is none.
        ModelError: the model's attention cannot be followed, or not by `source`.
    """
    if len(passages) and isinstance(passages[0], str):
        raise TextError(
            "passages are lists of token ids, not text; cut texts first, as in locate(model, cut(texts, model, 64))"
        )
    if rows is not None and not 0 < rows <= 1:
        raise TextError(f"a share of rows must be above 0 and at most 1, not {rows:g}; a tenth is 0.1")
    if not 0 <= seed < 2**32:
        raise TextError(f"seed {seed} is out of range; use 0 to {2**32 - 1}")
    if not 0 <= epsilon <= 1:
        raise TextError(f"epsilon {epsilon:g} is no share of attention; use a number from 0 to 1")
    if rows is not None and also:
        raise TextError(f"statistic {also[0]!r} (`statistics`) needs every row; leave out `query_fraction`")
    if unknown := [name for name in also if name not in QUERY_STATISTICS]:
        raise TextError(f"statistic {unknown[0]!r} is unknown; use {' or '.join(QUERY_STATISTICS)}")
    passages = passages if isinstance(passages, TokenSequences) else [list(passage) for passage in passages]
    if not passages:
        raise TextError("no passages to locate sinks in; give at least one")
    if min(map(len, passages)) < 2:
        raise TextError("a passage has fewer than two tokens; sinks need something to attend from")
    length = max(map(len, passages))
    shape = (model.n_layers, model.n_heads, length)
    choice = choose_backend(model, passages, source, None if rows is None else Sampling(rows, seed))
    column_mass = SampledMass(*shape, choice.sampling) if choice.sampling else SinkStatistics(*shape, epsilon)
    wanted = [*also, *(["learned_sink"] if model.has_learned_sinks else [])]
    by_row = [QUERY_STATISTICS[name](*shape) for name in dict.fromkeys(wanted)]
    choice.capture(
        model, passages, [column_mass, *by_row, *statistics], batch_size=batch_size, on_progress=on_progress
    )
    measured = column_mass.result()
    for statistic in by_row:
        measured |= statistic.result()
    attributes = {
        "model": model.name,
        "passages": len(passages),
        "epsilon": epsilon,
        "max_length": length,
        "source": str(choice),
    }
    data = xr.Dataset(
        {name: (("layer", "head", "position"), values.numpy()) for name, values in measured.items()},
        coords={
            "layer": np.arange(model.n_layers),
            "head": np.arange(model.n_heads),
            "position": np.arange(length),
        },
        attrs=attributes | ({"rows": rows, "seed": seed} if choice.sampling else {}),
    )
    reach = choice.sampling.reach if choice.sampling else int
    data["uniform"] = (("layer", "position"), _baseline(map(len, passages), model.windows, reach))
    data["passages"] = ("position", column_mass.count.numpy().astype("int64"))
    return SinkMap(data)


def locate_passage(model: Model, tokens: list[int]) -> SinkMap:
    """The sinks of a single passage, as `sink:r` placements need them."""
    return locate(model, [tokens], batch_size=1)
