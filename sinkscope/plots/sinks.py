"""Pictures of sinks: atlas over layers and heads, attention by position, one head's map, difference maps, value norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.figure import Figure

from sinkscope.plots.style import COLUMN, DIVERGING, PAGE, SEQUENTIAL, colour, style

ANNOTATED = 12  # write numbers into cells of atlases up to this many heads
LABELLED = 72  # show tokens as labels in maps up to this many


def atlas(sinks: pd.DataFrame, position: int, caption: str) -> Figure:
    """Layer × head heatmap of α and of the sink rate at one position. `sinks` has the columns of `SinkMap.to_frame()`."""
    style()
    here = sinks[sinks["position"] == position]
    n_layers, n_heads = here["layer"].nunique(), here["head"].nunique()
    cell = float(np.clip(0.32, 0, PAGE / 2 / max(n_heads, 1)))
    height = float(np.clip(cell * n_layers + 0.9, 1.7, 9))
    figure, axes = plt.subplots(1, 2, figsize=(min(PAGE, max(COLUMN, 2 * (cell * n_heads + 1.1))), height))
    for axis, column, title in zip(axes, ("alpha", "sink_rate"), (f"attention α to position {position}", "sink rate"), strict=True):
        grid = here.pivot(index="layer", columns="head", values=column)
        sns.heatmap(
            grid,
            ax=axis,
            vmin=0,
            vmax=1,
            cmap=SEQUENTIAL,
            square=n_layers <= 2 * n_heads,
            annot=max(n_layers, n_heads) <= ANNOTATED,
            fmt=".2f",
            annot_kws={"size": 5},
            cbar_kws={"shrink": 0.8},
            xticklabels=max(1, n_heads // 16),
            yticklabels=max(1, n_layers // 16),
        )
        axis.set(title=title, xlabel="head", ylabel="layer" if axis is axes[0] else "")
        axis.invert_yaxis()
        axis.tick_params(length=0)
    figure.suptitle(caption, fontsize=7)
    return figure


def received(profile: pd.DataFrame, caption: str) -> Figure:
    """Attention received by position, one line per `model`, with the uniform baseline. Columns model, position, alpha, uniform."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN, 2.1))
    for rank, (model, group) in enumerate(profile.groupby("model", sort=False)):
        width = max(0.8, 3.2 - 0.6 * rank)  # later lines are thinner, so that equal curves stay visible
        axis.plot(group["position"], group["alpha"], color=colour(str(model)), label=model, linewidth=width)
    base = profile.drop_duplicates("position")
    axis.plot(base["position"], base["uniform"], color="black", linestyle=":", linewidth=0.8, label="uniform attention")
    axis.set(xlabel="position (0 is the first token)", ylabel="attention received α", title=caption, ylim=(0, None))
    axis.legend()
    return figure


def head_map(pattern: Float[np.ndarray, "row key"], tokens: Sequence[str], caption: str) -> Figure:
    """Attention map of one head on one text, with tokens as labels where they are legible."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN * 1.25, COLUMN * 1.15))
    masked = np.where(np.tril(np.ones_like(pattern)), pattern, np.nan)
    image = axis.imshow(masked, cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest")
    if len(tokens) <= LABELLED:
        size = float(np.clip(190 / len(tokens), 2.6, 6))
        axis.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=size)
        axis.set_yticks(range(len(tokens)), tokens, fontsize=size)
        axis.tick_params(length=0)
    axis.set(xlabel="attended token", ylabel="query token", title=caption)
    figure.colorbar(image, ax=axis, shrink=0.8, label="attention")
    return figure


def difference_maps(maps: Mapping[str, tuple[Float[np.ndarray, "row key"], tuple[int, int]]], bin_size: int, caption: str) -> Figure:
    """Triggered − clean attention maps side by side, on one scale; `maps[label]` is (map in bins, trigger span in tokens)."""
    style()
    limit = max(float(np.nanmax(np.abs(values))) for values, _ in maps.values()) or 1.0
    figure, axes = plt.subplots(1, len(maps), figsize=(PAGE, PAGE / len(maps) + 0.5), squeeze=False, sharey=True)
    for axis, (label, (values, (start, stop))) in zip(axes[0], maps.items(), strict=True):
        edge = values.shape[0] * bin_size
        image = axis.imshow(values, cmap=DIVERGING, vmin=-limit, vmax=limit, extent=(0, edge, edge, 0), interpolation="nearest")
        axis.axvspan(start, stop, facecolor="none", edgecolor="black", linewidth=0.7)
        axis.set(title=label, xlabel="attended position")
    axes[0][0].set_ylabel("query position")
    figure.colorbar(image, ax=axes[0].tolist(), shrink=0.75, label="triggered − clean")
    figure.suptitle(caption, fontsize=7)
    return figure


def value_norms(norms: pd.DataFrame, caption: str) -> Figure:
    """Value norm by position, mean over heads of a layer, one line per model. Columns model, position, value_norm."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN, 2.1))
    for rank, (model, group) in enumerate(norms.groupby("model", sort=False)):
        width = max(0.8, 3.2 - 0.9 * rank)
        axis.plot(group["position"], group["value_norm"], marker="o", markersize=1.6 * width, linewidth=width, color=colour(str(model)), label=model)
    axis.set(xlabel="position (0 is the first token)", ylabel="value norm ‖v‖₂", title=caption, ylim=(0, None))
    axis.legend(ncols=2)
    return figure


def map_frame(pattern: Float[np.ndarray, "row key"], tokens: Sequence[str]) -> pd.DataFrame:
    """The numbers of a causal map, one row per cell: query, key, query_token, key_token, attention."""
    rows, keys = np.tril_indices(len(tokens))
    return pd.DataFrame(
        {
            "query": rows,
            "key": keys,
            "query_token": [tokens[int(i)] for i in rows],
            "key_token": [tokens[int(k)] for k in keys],
            "attention": pattern[rows, keys],
        }
    )
