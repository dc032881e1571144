"""The figures of the commands `locate` and `compare`, from the data sets and tables that they write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.plots import comparison as comparison_plots
from sinkscope.plots import sinks as sink_plots
from sinkscope.plots.style import save_figure
from sinkscope.plots.text import show_whitespace
from sinkscope.plots.token_heatmap import draw_tokens, tokens_table

N_NORM_POSITIONS = 32
"""Value norms are drawn at this many positions."""


def draw_locate(directory: Path, sinks: xr.Dataset, passage: xr.Dataset, maps: xr.DataArray) -> None:
    """Draw the atlas, attention by position, value norms, and the tokens and maps of one passage.

    Args:
        sinks: as `SinkMap.data`, with the attributes `strongest` (a position) and `always_sampled`.
        passage: as `SinkMap.passage`, with `text` on its positions and the attribute `n_ranked`: at how many
            of the first positions α is a mean over enough queries to be shaded.
        maps: (map, query, key) with `layer` and `head` of each map, and the attributes `bin` and `selected`:
            whether the user chose the heads, which then get a figure of their own each.
    """
    _draw_all_passages(directory, sinks)
    model = sinks.attrs["model"]
    texts = [str(text) for text in passage["text"].values]
    n_layers, n_heads, length = passage["alpha"].shape
    counted = f"n = 1 passage of {length} tokens"
    mean = passage["alpha"].mean(["layer", "head"]).values
    strips = {"token_strip": (mean, f"mean over {n_layers} layers × {n_heads} heads")}
    labels = [show_whitespace(text.strip(" ") or text) for text in texts]
    bin_size = maps.attrs["bin"]
    bins = f"; bins of {bin_size} positions: sum over keys, mean over queries" if bin_size > 1 else ""
    for pattern in maps:
        layer, head = int(pattern["layer"]), int(pattern["head"])
        name = f"layer {layer}, head {head}"
        suffix = f"_{layer}_{head}" if maps.attrs["selected"] else ""
        caption = f"{model}: {name}, {counted}{bins}"
        figure = sink_plots.draw_head_map(pattern.values, labels, caption, bin_size)
        table = sink_plots.head_map_table(pattern.values, labels, bin_size)
        save_figure(figure, table, directory, f"head_map{suffix}")
        if suffix:
            strips[f"token_strip{suffix}"] = (passage["alpha"].sel(layer=layer, head=head).values, name)
    for file, (alpha, name) in strips.items():
        shaded = np.where(np.arange(length) < passage.attrs["n_ranked"], alpha, np.nan)
        unshaded = f"the last {int(np.isnan(shaded).sum())} tokens have too few queries and are not shaded"
        figure = draw_tokens(texts, shaded, f"{model}: {name}, {counted}; {unshaded}")
        save_figure(figure, tokens_table(texts, alpha), directory, file)


def _draw_all_passages(directory: Path, sinks: xr.Dataset) -> None:
    attrs = sinks.attrs
    counted = f"{attrs['model']}, n = {attrs['passages']} passages of ≤ {attrs['max_length']} tokens"
    if "query_fraction" in attrs:
        counted += (
            f", {attrs['query_fraction']:g} of the queries after the first {attrs['always_sampled']} "
            f"(seed {attrs['seed']})"
        )
    frame = sinks.drop_vars("passages").to_dataframe(dim_order=["layer", "head", "position"]).reset_index()
    position = attrs["strongest"]
    atlas = sink_plots.draw_atlas(frame, position, f"mean over passages, {counted}")
    save_figure(atlas, frame[frame["position"] == position], directory, "atlas")
    profile = frame.groupby("position", as_index=False)[["alpha", "value_norm"]].mean()
    profile["model"] = attrs["model"]
    profile["uniform"] = sinks["uniform"].mean("layer").values
    caption = f"mean over layers and heads, {counted}"
    received = sink_plots.draw_attention_received(profile, caption)
    save_figure(received, profile, directory, "received_attention")
    norms = profile[profile["position"] < N_NORM_POSITIONS]
    save_figure(sink_plots.draw_value_norms(norms, caption), norms, directory, "value_norms")


def draw_comparison(directory: Path, tables: Mapping[str, pd.DataFrame], attrs: Mapping[str, Any]) -> None:
    """Draw difference maps, Δα by head and by position, correlation of value norms, top-1 probability.

    Args:
        tables: as `Comparison.tables`.
        attrs: the attributes of `Comparison.data`, and `strongest`, the position of the strongest sink.
    """
    description, difference = attrs["description"], attrs["difference"]
    counted = f"{description}, n = {attrs['passages']} passages of ≤ {attrs['max_length']} tokens"
    span = (attrs["trigger_start"], attrs["trigger_stop"]) if "trigger_start" in attrs else None
    _draw_difference_maps(directory, tables["maps"], attrs, span)

    attention = tables["attention"]
    positions = list(dict.fromkeys((attrs["strongest"], 0)))
    selected = attention[attention["position"].isin(positions)]
    figure = comparison_plots.draw_difference_by_head(selected, positions, difference, counted)
    save_figure(figure, selected, directory, "alpha_by_head")
    figure = comparison_plots.draw_difference_by_position(attention, difference, span, counted)
    save_figure(figure, attention, directory, "alpha_by_position")

    correlation = tables["value_norm_correlation"]
    n_kv_heads = correlation["pairs"].iloc[0] // attrs["passages"]
    shifted = (
        "; positions are compared as they are, also after an inserted trigger" if attrs["shifted"] else ""
    )
    caption = (
        f"{description}: {difference.replace(' − ', ' against ')}, "
        f"n = {attrs['passages']} passages × {n_kv_heads} key-value heads{shifted}"
    )
    figure = comparison_plots.draw_norm_correlation(correlation, caption)
    save_figure(figure, correlation, directory, "value_norm_correlation")
    figure = comparison_plots.draw_top1(tables["top1"], span, f"{counted}, mean")
    save_figure(figure, tables["top1"], directory, "top1")


def _draw_difference_maps(
    directory: Path, cells: pd.DataFrame, attrs: Mapping[str, Any], span: tuple[int, int] | None
) -> None:
    bin_size = attrs["map_bin"]
    n_bins = int(cells["query"].max()) // bin_size + 1
    maps = {}
    for head, rows in cells.groupby("head", dropna=False, sort=False):
        values = np.full((n_bins, n_bins), np.nan)
        values[rows["query"] // bin_size, rows["key"] // bin_size] = rows["difference"]
        maps["mean" if pd.isna(head) else f"head {head!s}"] = (values, span)
    n_full = attrs["full_length_passages"]
    n_shorter = attrs["passages"] - n_full
    omitted = f" ({n_shorter} shorter passages omitted)" if n_shorter else ""
    frame = "; frame: most common span of the trigger" if span else ""
    caption = (
        f"{attrs['description']}: layer {attrs['layer']}, heads and their mean, n = {n_full} passages of "
        f"{attrs['max_length']} tokens{omitted}, bins of {bin_size} tokens{frame}"
    )
    figure = comparison_plots.draw_difference_maps(maps, bin_size, attrs["difference"], caption)
    save_figure(figure, cells, directory, "attention_difference")
