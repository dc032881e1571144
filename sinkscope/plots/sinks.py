"""Figures of `locate`: atlas over layers and heads, attention and value norms by position, one head's map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from sinkscope.plots.heatmap import draw_layers
from sinkscope.plots.lines import draw_profiles
from sinkscope.plots.style import (
    COLUMN,
    DIVERGING,
    PAGE,
    SEQUENTIAL,
    create_figure,
    sanitize_glyphs,
    save_figure,
    set_note,
    show_whitespace,
    styled,
    truncate,
)
from sinkscope.plots.token_heatmap import draw_tokens, tokens_table

MAX_LABELED = 72  # label the axes of maps with tokens up to this many
LABEL = 16  # characters of a token's label
N_NORM_POSITIONS = 32
"""`draw_locate` draws value norms at this many positions."""


@styled
def draw_atlas(sinks: pd.DataFrame, position: int, note: str) -> Figure:
    """Layer × head heatmaps of α and of the sink rate at one position, or of the width of α's interval.

    Args:
        sinks: columns of `SinkMap.to_frame()`.
    """
    rows = sinks[sinks["position"] == position]
    uniform = f"\n(uniform: {rows['uniform'].mean():.2f})" if "uniform" in rows else ""
    panels = {f"attention α to position {position}{uniform}": rows["alpha"]}
    if "sink_rate" in rows:
        panels["sink rate"] = rows["sink_rate"]
    else:
        panels["width of α’s 95 % interval"] = rows["alpha_high"] - rows["alpha_low"]
    tables = {
        title: rows.assign(value=values).pivot(index="layer", columns="head", values="value")
        for title, values in panels.items()
    }
    return set_note(draw_layers(tables, SEQUENTIAL, (0, 1)), note)


@styled
def draw_attention_received(profile: pd.DataFrame, note: str) -> Figure:
    """Attention received by position, with the uniform baseline; see `draw_profiles`.

    Args:
        profile: columns model, position, alpha, uniform.
    """
    figure = draw_profiles(profile, "model", "alpha", "attention received α")
    axes = figure.axes[0]
    base = profile.drop_duplicates("position")
    axes.plot(base["position"], base["uniform"], "k:", linewidth=0.8, label="uniform attention")
    axes.set_ylim(0, None)
    axes.legend()
    return set_note(figure, note)


@styled
def draw_value_norms(norms: pd.DataFrame, note: str) -> Figure:
    """Value norm by position, mean over heads of a layer; see `draw_profiles`.

    Args:
        norms: columns model, position, value_norm.
    """
    figure = draw_profiles(norms, "model", "value_norm", "value norm ‖v‖₂")
    for line in (line for axes in figure.axes for line in axes.lines):
        line.set(marker="o", markersize=2.4)
    figure.axes[0].set_ylim(0, 1.06 * float(norms["value_norm"].max()))  # leaves room for the markers
    return set_note(figure, note)


@styled
def draw_head_map(
    pattern: Float[np.ndarray, "query_bin key_bin"], tokens: Sequence[str], note: str, bin_size: int = 1
) -> Figure:
    """Attention map of one head on one text, labeled with tokens where they are legible, else with positions.

    Args:
        bin_size: positions per cell.
    """
    label = "attention" if bin_size == 1 else f"attention into {bin_size} positions"
    return set_note(_draw_map(pattern, tokens, bin_size, SEQUENTIAL, (0, 1), label), note)


@styled
def draw_attention_scores(
    scores: Float[np.ndarray, "query_bin key_bin"], tokens: Sequence[str], note: str, bin_size: int = 1
) -> Figure:
    """Attention scores before the softmax of one head on one text; as `draw_head_map`, white at 0."""
    limit = float(np.nanmax(np.abs(scores))) or 1.0
    return set_note(_draw_map(scores, tokens, bin_size, DIVERGING, (-limit, limit), "attention score"), note)


def _draw_map(
    values: Float[np.ndarray, "query_bin key_bin"],
    tokens: Sequence[str],
    bin_size: int,
    palette: str,
    limits: tuple[float, float],
    label: str,
) -> Figure:
    n = len(tokens)
    is_labeled = bin_size == 1 and n <= MAX_LABELED
    side = float(np.clip(0.08 * n, COLUMN * 1.15, PAGE * 0.85)) if is_labeled else COLUMN * 1.15
    figure = create_figure(side * 1.09, side)
    axes = figure.subplots()
    edge = len(values) * bin_size - 0.5
    causal = np.where(np.tril(np.ones_like(values)), values, np.nan)
    extent = (-0.5, edge, edge, -0.5)
    image = axes.imshow(causal, palette, interpolation="nearest", extent=extent)
    image.set_clim(*limits)
    if is_labeled:
        size = float(np.clip(190 / n * side / (COLUMN * 1.15), 2.6, 6))
        labels = [sanitize_glyphs(truncate(token, LABEL)) for token in tokens]
        axes.set_xticks(range(n), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(n), labels, fontsize=size)
        axes.tick_params(length=0)
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))  # the last bin may extend beyond the text
    unit = "token" if is_labeled else "position"
    axes.set(xlabel=f"attended {unit}", ylabel=f"query {unit}")
    figure.colorbar(image, ax=axes, shrink=0.8, label=label)
    return figure


def head_map_table(
    pattern: Float[np.ndarray, "query_bin key_bin"],
    tokens: Sequence[str],
    bin_size: int = 1,
    name: str = "attention",
) -> pd.DataFrame:
    """The values of a causal map, a row per cell.

    Returns:
        Columns query, key (first positions of the bins), query_token, key_token (without bins), and `name`.
    """
    queries, keys = np.tril_indices(len(pattern))
    table = pd.DataFrame({"query": queries * bin_size, "key": keys * bin_size})
    if bin_size == 1:
        table["query_token"] = [tokens[int(i)] for i in queries]
        table["key_token"] = [tokens[int(k)] for k in keys]
    return table.assign(**{name: pattern[queries, keys]})


def draw_locate(directory: Path, sinks: xr.Dataset, passage: xr.Dataset, maps: xr.Dataset) -> None:
    """Draw the atlas, attention by position, value norms, and the tokens and maps of one passage.

    Without a choice of the user two heads have maps: of the strongest sink, and of the greatest entropy.

    Args:
        sinks: as `SinkMap.data`, with the attributes `strongest` (a position) and `always_sampled`.
        passage: as `SinkMap.passage`, with `text` on its positions and the attribute `n_shaded`: at how many
            of the first positions α is a mean over enough queries to be shaded.
        maps: `pattern` and maybe `attention_scores` (map, query, key), with `layer` and `head` of each map,
            and the attributes `bin` and `selected`: whether the user chose the heads, which then get figures
            of their own each.
    """
    _draw_all_passages(directory, sinks)
    model = sinks.attrs["model"]
    texts = [str(text) for text in passage["text"].values]
    _, n_heads, length = passage["alpha"].shape
    n_layers = int(passage["alpha"].isel(head=0, position=0).notnull().sum())  # that attend
    number = passage.attrs["passage"]
    counted = f"n\u00a0=\u00a01 passage (number {number}) of {length} tokens, {sinks.attrs['bos']}"
    mean = passage["alpha"].mean(["layer", "head"]).values
    strips = {"token_strip": (mean, f"mean over {n_layers} layers × {n_heads} heads")}
    labels = [show_whitespace(text.strip(" ") or text) for text in texts]
    bin_size = maps.attrs["bin"]
    bins = f"; bins of {bin_size} positions: sum over keys, mean over queries" if bin_size > 1 else ""
    for index in range(maps.sizes["map"]):
        layer, head = int(maps["layer"][index]), int(maps["head"][index])
        name = f"layer {layer}, head {head}"
        suffix = f"_{layer}_{head}" if maps.attrs["selected"] else ("", "_entropy")[index]
        if not maps.attrs["selected"]:
            name += (" with the strongest sink", " of the greatest entropy")[index]
        pattern = maps["pattern"].values[index]
        figure = draw_head_map(pattern, labels, f"{model}: {name}, {counted}{bins}", bin_size)
        save_figure(figure, head_map_table(pattern, labels, bin_size), directory, f"head_map{suffix}")
        if "attention_scores" in maps:
            scores = maps["attention_scores"].values[index]
            means = f"; means over bins of {bin_size} positions" if bin_size > 1 else ""
            figure = draw_attention_scores(
                scores, labels, f"{model}: {name}, before the softmax, {counted}{means}", bin_size
            )
            table = head_map_table(scores, labels, bin_size, "score").dropna(subset="score")
            save_figure(figure, table, directory, f"attention_scores{suffix}")
        if maps.attrs["selected"]:
            strips[f"token_strip{suffix}"] = (passage["alpha"].sel(layer=layer, head=head).values, name)
    for file, (alpha, name) in strips.items():
        shaded = np.where(np.arange(length) < passage.attrs["n_shaded"], alpha, np.nan)
        unshaded = f"the last {int(np.isnan(shaded).sum())} tokens have too few queries and are not shaded"
        figure = draw_tokens(texts, shaded, f"{model}: {name}, {counted}; {unshaded}")
        save_figure(figure, tokens_table(texts, alpha), directory, file)


def _draw_all_passages(directory: Path, sinks: xr.Dataset) -> None:
    attrs = sinks.attrs
    counted = (
        f"{attrs['model']}, n\u00a0=\u00a0{attrs['passages']} passages of ≤ {attrs['max_length']} tokens, "
        f"{attrs['bos']}"
    )
    if "query_fraction" in attrs:
        fraction = f"{attrs['query_fraction']:g} of the queries after the first {attrs['always_sampled']}"
        counted += f", {fraction} (seed {attrs['seed']})"
    frame = (
        sinks.drop_vars(["passages", "ranked"])
        .to_dataframe(dim_order=["layer", "head", "position"])
        .reset_index()
    )
    position = attrs["strongest"]
    at_strongest = frame[frame["position"] == position]
    gray = "; gray: layers that do not attend" if at_strongest["alpha"].isna().any() else ""
    atlas = draw_atlas(frame, position, f"mean over passages, {counted}{gray}")
    save_figure(atlas, at_strongest, directory, "atlas")
    profile = frame.groupby("position", as_index=False)[["alpha", "value_norm"]].mean()
    profile = profile.assign(model=attrs["model"], uniform=sinks["uniform"].mean("layer").values)
    note = f"mean over layers and heads, {counted}"
    save_figure(draw_attention_received(profile, note), profile, directory, "received_attention")
    norms = profile[profile["position"] < N_NORM_POSITIONS]
    save_figure(draw_value_norms(norms, note), norms, directory, "value_norms")
