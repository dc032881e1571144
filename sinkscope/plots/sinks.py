"""Pictures of sinks: atlas over layers and heads, attention by position, one head's map, value norms."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from sinkscope.plots.style import COLUMN, PAGE, SEQUENTIAL, color, style
from sinkscope.plots.text import sanitize_glyphs, truncate, wrap_caption

ANNOTATED = 12  # write numbers into cells of atlases up to this many layers and heads
LABELLED = 72  # show tokens as labels in maps up to this many
LABEL = 16  # characters of a token's label
STEPS = (1, 2, 4, 8, 16, 32, 64)


def draw_atlas(sinks: pd.DataFrame, position: int, caption: str) -> Figure:
    """Layer × head heatmap of α and of the sink rate at one position, or of the width of a sample's interval. `sinks` has the columns of `SinkMap.to_frame()`.

    Never larger than a page, whatever the model; large models get small cells and a label at every second, fourth … layer and head.
    """
    style()
    here = sinks[sinks["position"] == position]
    n_layers, n_heads = here["layer"].nunique(), here["head"].nunique()
    numbers = max(n_layers, n_heads) <= ANNOTATED
    width = float(np.clip((0.32 if numbers else 0.12) * n_heads, 1.3, 2.75))
    height = float(np.clip(width / n_heads * n_layers, 0.8, 6.5))
    size = (2 * width + 1.3, height + 0.9)
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True)
    if "sink_rate" in here:
        beside, title = here["sink_rate"], "sink rate"
    else:
        beside, title = here["alpha_high"] - here["alpha_low"], "width of α’s 95 % interval"
    panels = ((here["alpha"], f"attention α to position {position}"), (beside, title))
    for axis, (values, title) in zip(axes, panels, strict=True):
        grid = here.assign(value=values).pivot(index="layer", columns="head", values="value").to_numpy()
        image = axis.imshow(
            grid, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest"
        )
        if numbers:
            for (layer, head), value in np.ndenumerate(grid):
                axis.text(
                    head,
                    layer,
                    f"{value:.2f}",
                    fontsize=5,
                    ha="center",
                    va="center",
                    color="black" if value > 0.6 else "white",
                )
        axis.set(
            title=title,
            xlabel="head",
            xticks=_ticks(n_heads, width / 0.17),
            yticks=_ticks(n_layers, height / 0.11),
        )
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes, aspect=height / 0.08, pad=0.03)
    figure.suptitle(wrap_caption(caption, size[0]), fontsize=7)
    return figure


def _ticks(n: int, room: float) -> range:
    """Every first, second, fourth … of n, as many as there is room for."""
    return range(0, n, next(step for step in STEPS if n <= step * room or step == STEPS[-1]))


def draw_attention_received(profile: pd.DataFrame, caption: str) -> Figure:
    """Attention received by position, one line per `model`, with the uniform baseline. Columns model, position, alpha, uniform."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN, 2.1))
    alone = profile["model"].nunique() == 1
    for rank, (model, group) in enumerate(profile.groupby("model", sort=False)):
        width = (
            1.2 if alone else max(0.8, 3.2 - 0.6 * rank)
        )  # later lines are thinner, so that equal curves stay visible
        axis.plot(
            group["position"],
            group["alpha"],
            color=color(str(model)),
            label=sanitize_glyphs(str(model)),
            linewidth=width,
        )
    base = profile.drop_duplicates("position")
    axis.plot(
        base["position"],
        base["uniform"],
        color="black",
        linestyle=":",
        linewidth=0.8,
        label="uniform attention",
    )
    axis.set(
        xlabel="position (0 is the first token)",
        ylabel="attention received α",
        title=wrap_caption(caption, COLUMN - 0.5),
        ylim=(0, None),
    )
    axis.legend()
    return figure


def draw_head_map(
    pattern: Float[np.ndarray, "query_bin key_bin"], tokens: Sequence[str], caption: str, bin_size: int = 1
) -> Figure:
    """Attention map of one head on one text: tokens as labels where they are legible, positions otherwise. Cells are bins of `bin_size` positions."""
    style()
    labelled = bin_size == 1 and len(tokens) <= LABELLED
    side = float(np.clip(0.08 * len(tokens), COLUMN * 1.15, PAGE * 0.85)) if labelled else COLUMN * 1.15
    figure, axis = plt.subplots(figsize=(side * 1.09, side))
    edge = len(pattern) * bin_size - 0.5
    masked = np.where(np.tril(np.ones_like(pattern)), pattern, np.nan)
    image = axis.imshow(
        masked, cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest", extent=(-0.5, edge, edge, -0.5)
    )
    if labelled:
        size = float(np.clip(190 / len(tokens) * side / (COLUMN * 1.15), 2.6, 6))
        labels = [sanitize_glyphs(truncate(token, LABEL)) for token in tokens]
        axis.set_xticks(range(len(tokens)), labels, rotation=90, fontsize=size)
        axis.set_yticks(range(len(tokens)), labels, fontsize=size)
        axis.tick_params(length=0)
    axis.set(
        xlim=(-0.5, len(tokens) - 0.5), ylim=(len(tokens) - 0.5, -0.5)
    )  # the last bin may reach beyond the text
    kind = "token" if labelled else "position"
    axis.set(xlabel=f"attended {kind}", ylabel=f"query {kind}", title=wrap_caption(caption, side))
    figure.colorbar(
        image,
        ax=axis,
        shrink=0.8,
        label="attention" if bin_size == 1 else f"attention into {bin_size} positions",
    )
    return figure


def draw_value_norms(norms: pd.DataFrame, caption: str) -> Figure:
    """Value norm by position, mean over heads of a layer, one line per model. Columns model, position, value_norm."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN, 2.1))
    for rank, (model, group) in enumerate(norms.groupby("model", sort=False)):
        width = max(0.8, 3.2 - 0.9 * rank)
        axis.plot(
            group["position"],
            group["value_norm"],
            marker="o",
            markersize=1.6 * width,
            linewidth=width,
            color=color(str(model)),
            label=sanitize_glyphs(str(model)),
        )
    top = 1.06 * float(norms["value_norm"].max())  # so that no marker is cut
    axis.set(
        xlabel="position (0 is the first token)",
        ylabel="value norm ‖v‖₂",
        title=wrap_caption(caption, COLUMN - 0.5),
        ylim=(0, top),
    )
    axis.legend(ncols=2)
    return figure


def head_map_table(
    pattern: Float[np.ndarray, "query_bin key_bin"], tokens: Sequence[str], bin_size: int = 1
) -> pd.DataFrame:
    """The numbers of a causal map, one row per cell: query, key (first positions of the bins), query_token, key_token (of single positions), attention."""
    rows, keys = np.tril_indices(len(pattern))
    frame = pd.DataFrame({"query": rows * bin_size, "key": keys * bin_size})
    if bin_size == 1:
        frame["query_token"], frame["key_token"] = (
            [tokens[int(i)] for i in rows],
            [tokens[int(k)] for k in keys],
        )
    frame["attention"] = pattern[rows, keys]
    return frame
