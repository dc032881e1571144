"""Figures of sinks: atlas over layers and heads, attention by position, one head's map, value norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sinkscope.plots.lines import draw_overlaid_lines
from sinkscope.plots.style import COLUMN, PAGE, SEQUENTIAL, create_figure, set_caption, styled
from sinkscope.plots.text import sanitize_glyphs, truncate, wrap_caption

MAX_ANNOTATED = 12  # write numbers into cells of atlases up to this many layers and heads
MAX_LABELED = 72  # label the axes of maps with tokens up to this many
LABEL = 16  # characters of a token's label
STEPS = (1, 2, 4, 8, 16, 32, 64)
X_AXIS = "position (0 is the first token)"


@styled
def draw_atlas(sinks: pd.DataFrame, position: int, caption: str) -> Figure:
    """Layer × head heatmaps of α and of the sink rate at one position, or of the width of α's interval.

    The figure never exceeds a page: large models get small cells and a label at every second, fourth …
    layer and head.

    Args:
        sinks: columns of `SinkMap.to_frame()`.
    """
    rows = sinks[sinks["position"] == position]
    n_layers, n_heads = rows["layer"].nunique(), rows["head"].nunique()
    is_annotated = max(n_layers, n_heads) <= MAX_ANNOTATED
    width = float(np.clip((0.32 if is_annotated else 0.12) * n_heads, 1.3, 2.75))
    height = float(np.clip(width / n_heads * n_layers, 0.8, 6.5))
    panels = {f"attention α to position {position}": rows["alpha"]}
    if "sink_rate" in rows:
        panels["sink rate"] = rows["sink_rate"]
    else:
        panels["width of α’s 95 % interval"] = rows["alpha_high"] - rows["alpha_low"]
    figure = create_figure(2 * width + 1.3, height + 0.9)
    grid = figure.subplots(1, 2, sharey=True)
    for axes, (title, values) in zip(grid, panels.items(), strict=True):
        cells = rows.assign(value=values).pivot(index="layer", columns="head", values="value").to_numpy()
        image = axes.imshow(
            cells, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest"
        )
        if is_annotated:
            _annotate(axes, cells)
        ticks: dict[str, Any] = {
            "xticks": _ticks(n_heads, width / 0.17),
            "yticks": _ticks(n_layers, height / 0.11),
        }
        axes.set(title=title, xlabel="head", **ticks)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    grid[0].set_ylabel("layer")
    figure.colorbar(image, ax=grid, aspect=height / 0.08, pad=0.03)
    return set_caption(figure, caption)


def _annotate(axes: Axes, cells: Float[np.ndarray, "layer head"]) -> None:
    for (layer, head), value in np.ndenumerate(cells):
        shade = "black" if value > 0.6 else "white"
        axes.text(head, layer, f"{value:.2f}", fontsize=5, ha="center", va="center", color=shade)


def _ticks(n: int, room: float) -> range:
    """Every first, second, fourth … of n, as many as there is room for."""
    return range(0, n, next(step for step in STEPS if n <= step * room or step == STEPS[-1]))


@styled
def draw_attention_received(profile: pd.DataFrame, caption: str) -> Figure:
    """Attention received by position, one line per `model`, with the uniform baseline.

    Args:
        profile: columns model, position, alpha, uniform.
    """
    figure = create_figure(COLUMN, 2.1)
    axes = figure.subplots()
    widths = (1.2, 0.0) if profile["model"].nunique() == 1 else (3.2, 0.6)
    draw_overlaid_lines(axes, profile, "model", "position", "alpha", widths)
    base = profile.drop_duplicates("position")
    dotted: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 0.8}
    axes.plot(base["position"], base["uniform"], label="uniform attention", **dotted)
    title = wrap_caption(caption, COLUMN - 0.5)
    axes.set(xlabel=X_AXIS, ylabel="attention received α", title=title, ylim=(0, None))
    axes.legend()
    return figure


@styled
def draw_head_map(
    pattern: Float[np.ndarray, "query_bin key_bin"], tokens: Sequence[str], caption: str, bin_size: int = 1
) -> Figure:
    """Attention map of one head on one text, labeled with tokens where they are legible, else with positions.

    Args:
        bin_size: positions per cell.
    """
    n = len(tokens)
    is_labeled = bin_size == 1 and n <= MAX_LABELED
    side = float(np.clip(0.08 * n, COLUMN * 1.15, PAGE * 0.85)) if is_labeled else COLUMN * 1.15
    figure = create_figure(side * 1.09, side)
    axes = figure.subplots()
    edge = len(pattern) * bin_size - 0.5
    causal = np.where(np.tril(np.ones_like(pattern)), pattern, np.nan)
    extent = (-0.5, edge, edge, -0.5)
    image = axes.imshow(causal, cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest", extent=extent)
    if is_labeled:
        size = float(np.clip(190 / n * side / (COLUMN * 1.15), 2.6, 6))
        labels = [sanitize_glyphs(truncate(token, LABEL)) for token in tokens]
        axes.set_xticks(range(n), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(n), labels, fontsize=size)
        axes.tick_params(length=0)
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))  # the last bin may extend beyond the text
    unit = "token" if is_labeled else "position"
    axes.set(xlabel=f"attended {unit}", ylabel=f"query {unit}", title=wrap_caption(caption, side))
    label = "attention" if bin_size == 1 else f"attention into {bin_size} positions"
    figure.colorbar(image, ax=axes, shrink=0.8, label=label)
    return figure


@styled
def draw_value_norms(norms: pd.DataFrame, caption: str) -> Figure:
    """Value norm by position, mean over heads of a layer, one line per model.

    Args:
        norms: columns model, position, value_norm.
    """
    figure = create_figure(COLUMN, 2.1)
    axes = figure.subplots()
    draw_overlaid_lines(axes, norms, "model", "position", "value_norm", (3.2, 0.9))
    for line in axes.lines:
        line.set(marker="o", markersize=1.6 * line.get_linewidth())
    top = 1.06 * float(norms["value_norm"].max())  # leaves room for the markers
    title = wrap_caption(caption, COLUMN - 0.5)
    axes.set(xlabel=X_AXIS, ylabel="value norm ‖v‖₂", title=title, ylim=(0, top))
    axes.legend(ncols=2)
    return figure


def head_map_table(
    pattern: Float[np.ndarray, "query_bin key_bin"], tokens: Sequence[str], bin_size: int = 1
) -> pd.DataFrame:
    """The values of a causal map, a row per cell.

    Returns:
        Columns query, key (first positions of the bins), query_token, key_token (without bins), attention.
    """
    queries, keys = np.tril_indices(len(pattern))
    table = pd.DataFrame({"query": queries * bin_size, "key": keys * bin_size})
    if bin_size == 1:
        table["query_token"] = [tokens[int(i)] for i in queries]
        table["key_token"] = [tokens[int(k)] for k in keys]
    return table.assign(attention=pattern[queries, keys])
