"""Page of `sinkscope locate`: the sink atlas of one model, with tables of positions, heads and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.io.tables import load_netcdf, read_parquet
from sinkscope.report.page import Page, metadata
from sinkscope.report.payload import View
from sinkscope.sinks.sink_map import SinkMap
from sinkscope.sinks.statistics import STATISTICS

TABLES = {
    "sink_tokens": (
        "Sink tokens",
        "Tokens with α above the threshold in some head, in the first half of a passage; heads counts pairs "
        "of head and passage.",
    ),
    "token_kinds": (
        "Kinds of tokens",
        "Probability that the position with the highest α of a head, in the first half of a passage, holds a "
        "token of this kind.",
    ),
    "massive_activations": ("Massive activations", ""),
    "experts": (
        "Experts",
        "Share of tokens for which an expert is chosen, at the strongest position and elsewhere.",
    ),
}
"""Further tables: title and note."""
N_EXACT = 8
"""Number of strongest positions that are also listed individually where positions are binned."""


def build_page(directory: Path, manifest: dict[str, Any]) -> Page:
    """The page of a directory that `locate` wrote."""
    sinks = SinkMap.read(directory)
    ranked = sinks.ranked()
    attributes = sinks.data.attrs
    names = [name for name in ("max_length", "bos", "backend") if name in attributes]  # older: no `bos`
    more: dict[str, Any] = {name: attributes[name] for name in names}
    if "query_fraction" in attributes:
        more["queries"] = f"{attributes['query_fraction']:g} of all, sampled with seed {attributes['seed']}"
    if len(sinks.attention_layers) < sinks.data.sizes["layer"]:
        more["layers that attend"] = sinks.attention_layers
    more["strongest positions"] = ", ".join(
        f"{row.position} (α {row.alpha:.3f}, uniform {row.uniform:.3f})"
        for row in ranked.head(3).itertuples()
    )
    model = str(attributes["model"])
    page = Page(f"Attention sinks of {model}", metadata(manifest, **more))
    page.atlas.append((model, page.add_view(_view(directory, sinks, ranked))))
    note = "Mean over layers and heads; only positions with half of a passage's queries at or after them."
    page.add_table("tables", "positions", "Positions by attention received", ranked, note)
    strongest = _heads_at(sinks, int(ranked["position"].iloc[0]))
    page.add_table("tables", "heads", "Heads at the strongest position", strongest)
    for name, (title, note) in TABLES.items():
        if (directory / f"{name}.parquet").is_file():
            page.add_table("tables", name, title, read_parquet(directory / f"{name}.parquet"), note)
    return page


def _view(directory: Path, sinks: SinkMap, ranked: pd.DataFrame) -> View:
    passage: xr.Dataset = load_netcdf(directory / "passage.nc")
    passage_alpha = np.full(sinks.alpha.shape, np.nan)
    passage_alpha[..., : passage.sizes["position"]] = passage["alpha"].values
    return View(
        {name: sinks.data[name].values for name in STATISTICS if name in sinks.data},
        sinks.data["passages"].values,
        sinks.data["uniform"].values,
        passage["pattern"].values,
        int(passage.attrs["bin"]),
        read_parquet(directory / "passage.parquet")["text"].tolist(),
        passage_alpha,
        ranked=sinks.data["ranked"].values.astype(bool),
        exact_positions=sorted(ranked["position"].head(N_EXACT).astype(int)),
    )


def _heads_at(sinks: SinkMap, position: int) -> pd.DataFrame:
    data = sinks.data.isel(layer=sinks.attention_layers).sel(position=position)
    data = data.drop_vars(["passages", "ranked"])
    return data.to_dataframe().reset_index().sort_values("alpha", ascending=False, kind="stable")
