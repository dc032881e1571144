"""The text itself, every token shaded by the attention it received."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sinkscope.plots.style import PAGE, SHADE, style
from sinkscope.plots.text import MONO, sanitize_glyphs, show_whitespace, truncate, wrap_caption

SIZE = 6.5  # pt
CHARACTER, LINE = 0.602 * SIZE / 72, 0.165  # inches; DejaVu Sans Mono is 0.602 em wide
LEFT, RIGHT = 0.45, 0.1
COLUMNS = int((PAGE - LEFT - RIGHT) / CHARACTER)
LINES = 50  # a page
CLIPPED = 40


def draw_tokens(tokens: Sequence[str], alpha: Float[np.ndarray, " position"], title: str) -> Figure:
    """Tokens in lines, with the position of each line's first token; as many as fit a page, which the caption then says.

    Args:
        tokens: any text; spaces, newlines and what else cannot be seen are drawn as signs.
        alpha: attention received; NaN leaves a token unshaded. The shade goes with the square root, so that weak attention shows beside a sink.
    """
    style()
    labels = [truncate(show_whitespace(token), CLIPPED) for token in tokens]
    places = _places([len(label) for label in labels])
    if len(places) < len(labels):
        title += f"; the first {len(places)} of {len(labels)} tokens"
    lines = 1 + max((line for line, _ in places), default=0)
    heading = wrap_caption(title, PAGE - LEFT)
    top, bottom = 0.1 + 0.125 * (heading.count("\n") + 1), 0.5
    height = top + lines * LINE + bottom
    figure = plt.figure(figsize=(PAGE, height))
    figure.set_layout_engine("none")  # places are counted in characters
    axis = figure.add_axes((LEFT / PAGE, bottom / height, COLUMNS * CHARACTER / PAGE, lines * LINE / height))
    axis.set(xlim=(0, COLUMNS), ylim=(lines, 0))
    axis.axis("off")
    most = float(np.nan_to_num(alpha).max(initial=0)) or 1.0
    norm, colors = PowerNorm(0.5, 0, most), plt.get_cmap(SHADE)
    boxes = []
    for position, (line, column) in enumerate(places):
        label, shade = labels[position], float(norm(alpha[position]))
        if not np.isnan(shade):
            boxes.append(
                Rectangle(
                    (column, line + 0.04),
                    len(label),
                    0.92,
                    facecolor=colors(shade),
                    edgecolor="white",
                    linewidth=0.4,
                )
            )
        ink = "0.55" if np.isnan(shade) else "white" if shade > 0.6 else "black"
        axis.text(
            column,
            line + 0.52,
            sanitize_glyphs(label, MONO),
            family=MONO,
            fontsize=SIZE,
            color=ink,
            va="center_baseline",
        )
        if column == 0:
            axis.text(
                -1, line + 0.52, str(position), fontsize=5, color="0.4", ha="right", va="center_baseline"
            )
    axis.add_collection(PatchCollection(boxes, match_original=True))
    figure.text(LEFT / PAGE, 1 - 0.06 / height, heading, fontsize=7, va="top")
    bar = figure.add_axes((LEFT / PAGE, 0.34 / height, 2.0 / PAGE, 0.07 / height))
    figure.colorbar(
        ScalarMappable(norm, colors),
        cax=bar,
        orientation="horizontal",
        ticks=most * np.linspace(0, 1, 5) ** 2,
        format="%.2g",
    )
    bar.tick_params(labelsize=5, length=2)
    bar.text(1.04, 0.5, "attention received α", fontsize=6, va="center", transform=bar.transAxes)
    return figure


def tokens_table(tokens: Sequence[str], alpha: Float[np.ndarray, " position"]) -> pd.DataFrame:
    """One row per token: position, token (with signs for spaces and newlines), alpha."""
    return pd.DataFrame(
        {
            "position": np.arange(len(tokens)),
            "token": [show_whitespace(token) for token in tokens],
            "alpha": alpha,
        }
    )


def _places(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Line and column of each token, up to the first that no longer fits the page."""
    places, line, column = [], 0, 0
    for width in widths:
        if column + width > COLUMNS:
            line, column = line + 1, 0
        if line == LINES:
            break
        places.append((line, column))
        column += width
    return places
